// Command traffic is the server and the load of the mesh's tests: lines over TCP, each answered by itself. Nothing here
// tries again, so that every failure is seen; HTTP clients would repeat a request on a new connection by themselves.
//
//	traffic serve PORT...
//	traffic health PORT
//	traffic load HOST:PORT MARKER KEPT FRESH [REQUESTS]
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"syscall"
)

func main() {
	var err error
	switch {
	case len(os.Args) > 2 && os.Args[1] == "serve":
		err = serve(os.Args[2:])
	case len(os.Args) > 2 && os.Args[1] == "health":
		err = health(os.Args[2])
	case len(os.Args) > 5 && os.Args[1] == "load":
		err = loadUntilTold(os.Args[2:])
	default:
		err = fmt.Errorf("usage: traffic serve PORT... | health PORT | load HOST:PORT MARKER KEPT FRESH [REQUESTS]")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "traffic:", err)
		os.Exit(1)
	}
}

// Until standard input or the pod ends, or each client has made REQUESTS; the last line of the output is the result.
func loadUntilTold(arguments []string) error {
	var numbers [3]int
	for index, text := range arguments[2:] {
		number, err := strconv.Atoi(text)
		if err != nil {
			return err
		}
		numbers[index] = number
	}
	stop := make(chan os.Signal, 3)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	if input, err := os.Stdin.Stat(); err == nil && input.Mode()&os.ModeCharDevice == 0 { // not a pod's /dev/null
		go func() {
			io.Copy(io.Discard, os.Stdin)
			stop <- syscall.SIGTERM
		}()
	}
	fmt.Println("loading")
	return json.NewEncoder(os.Stdout).Encode(load(arguments[0], arguments[1], numbers[0], numbers[1], numbers[2], stop))
}
