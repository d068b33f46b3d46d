// Command probe is what runs in pods of tests: `probe serve ADDRESS TEXT`, `probe get URL [TOKEN-FILE]`, `probe wait`.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	arguments := append(os.Args[1:], "", "")
	var err error
	switch arguments[0] {
	case "serve":
		err = serve(arguments[1], arguments[2])
	case "get":
		err = get(arguments[1], arguments[2])
	case "wait":
		ended := make(chan os.Signal, 1)
		signal.Notify(ended, syscall.SIGTERM)
		<-ended
	default:
		err = fmt.Errorf("usage: probe serve ADDRESS TEXT | get URL [TOKEN-FILE] | wait")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

func serve(address, text string) error {
	return http.ListenAndServe(address, http.HandlerFunc(func(answer http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(answer, text)
	}))
}

// Certificates are checked against SSL_CERT_FILE, as crypto/x509 does by itself.
func get(url, tokenFile string) error {
	request, err := http.NewRequest("GET", url, nil)
	if err != nil {
		return err
	}
	if tokenFile != "" {
		token, err := os.ReadFile(tokenFile)
		if err != nil {
			return err
		}
		request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	answer, err := (&http.Client{Timeout: 5 * time.Second}).Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if _, err = io.Copy(os.Stdout, answer.Body); err == nil && answer.StatusCode >= 400 {
		err = fmt.Errorf("%s: %s", url, answer.Status)
	}
	return err
}
