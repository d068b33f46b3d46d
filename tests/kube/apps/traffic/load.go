package main

import (
	"bufio"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	patience = 10 * time.Second      // for one request: longer is a failure
	pause    = 5 * time.Millisecond  // between requests of one client: a load, not a flood
	lifetime = 100                   // requests of a kept connection; those of the first client have no end
	setback  = 50 * time.Millisecond // after a failure
)

type result struct {
	Good     int            `json:"good"`
	Bad      map[string]int `json:"bad"`      // by what went wrong
	Servers  map[string]int `json:"servers"`  // who has answered
	Slowest  float64        `json:"slowest"`  // seconds, of a request with its dial
	Dials    int            `json:"dials"`    // connections that stood
	Failures []string       `json:"failures"` // the first ones: when, and what
}

type runner struct {
	host, marker string
	requests     int // of each client; 0: no end
	stop         chan struct{}
	mutex        sync.Mutex
	total        result
}

// kept clients keep their connections, fresh ones dial for every request.
func load(host, marker string, kept, fresh, requests int, stop <-chan os.Signal) result {
	run := &runner{host: host, marker: marker, requests: requests, stop: make(chan struct{})}
	run.total = result{Bad: map[string]int{}, Servers: map[string]int{}, Failures: []string{}}
	var clients sync.WaitGroup
	for index := range kept + fresh {
		clients.Add(1)
		go func() {
			defer clients.Done()
			switch {
			case index >= kept:
				run.client("fresh", 1)
			case index > 0:
				run.client("kept", lifetime)
			default:
				run.client("kept", math.MaxInt)
			}
		}()
	}
	ended := make(chan struct{})
	go func() { clients.Wait(); close(ended) }()
	select {
	case <-stop:
		close(run.stop)
		<-ended
	case <-ended:
	}
	return run.total
}

type line struct {
	connection net.Conn
	reader     *bufio.Reader
	dialled    int64 // nanoseconds since 1970
	requests   int
}

func (run *runner) client(kind string, lifetime int) {
	var open *line
	for number := 0; !run.ended(number); number++ {
		began := time.Now()
		var err error
		if open == nil {
			open, err = run.dial()
		}
		var server string
		if err == nil {
			server, err = run.ask(open, kind, number)
		}
		run.note(began, kind, server, err)
		if open != nil && (err != nil || open.requests >= lifetime) {
			open.connection.Close()
			open = nil
		}
		if err != nil {
			time.Sleep(setback)
		}
		time.Sleep(pause)
	}
	if open != nil {
		open.connection.Close()
	}
}

func (run *runner) dial() (*line, error) {
	dialled := time.Now().UnixNano()
	connection, err := net.DialTimeout("tcp", run.host, patience)
	if err != nil {
		return nil, err
	}
	run.mutex.Lock()
	run.total.Dials++
	run.mutex.Unlock()
	return &line{connection: connection, reader: bufio.NewReader(connection), dialled: dialled}, nil
}

// Says `MARKER KIND <when this connection was dialled> NUMBER` and wants the same back: whose bytes they are, and since
// when, can be read from a packet.
func (run *runner) ask(open *line, kind string, number int) (string, error) {
	open.requests++
	open.connection.SetDeadline(time.Now().Add(patience))
	text := fmt.Sprintf("%s %s %d %d\n", run.marker, kind, open.dialled, number)
	if _, err := open.connection.Write([]byte(text)); err != nil {
		return "", err
	}
	answer, err := open.reader.ReadString('\n')
	if err != nil {
		return "", err
	}
	server, echo, _ := strings.Cut(answer, " ")
	if echo != text {
		return "", fmt.Errorf("asked %q, answered %q", text, answer)
	}
	return server, nil
}

func (run *runner) note(began time.Time, kind, server string, err error) {
	run.mutex.Lock()
	defer run.mutex.Unlock()
	run.total.Slowest = max(run.total.Slowest, time.Since(began).Seconds())
	if err == nil {
		run.total.Good++
		run.total.Servers[server]++
		return
	}
	run.total.Bad[kind+": "+cause(err)]++
	if len(run.total.Failures) < 20 {
		run.total.Failures = append(run.total.Failures, fmt.Sprintf("%s %s: %v", began.Format(time.StampMicro), kind, err))
	}
}

// Addresses and ports left out, so that alike failures are counted together.
func cause(err error) string {
	var number syscall.Errno
	if errors.As(err, &number) {
		return number.Error()
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return "timeout"
	}
	return err.Error()
}

func (run *runner) ended(requests int) bool {
	select {
	case <-run.stop:
		return true
	default:
		return run.requests > 0 && requests >= run.requests
	}
}
