package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
)

// Each line comes back with the server's name before it. A line that is not whole when the client ends gets no answer.
func serve(ports []string) error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	failed := make(chan error)
	for _, port := range ports {
		listener, err := net.Listen("tcp", ":"+port)
		if err != nil {
			return err
		}
		go func() { failed <- accept(listener, name) }()
	}
	fmt.Println("serving")
	return <-failed
}

func accept(listener net.Listener, name string) error {
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		go answer(connection, name)
	}
}

func answer(connection net.Conn, name string) {
	defer connection.Close()
	lines := bufio.NewReader(connection)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		if _, err := fmt.Fprintf(connection, "%s %s", name, line); err != nil {
			return
		}
	}
}
