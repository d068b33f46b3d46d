package main

import (
	"fmt"
	"net/http"
)

// Answers what a kubelet's probes ask, and says a line for each: HTTP, and the gRPC health protocol
// (grpc/grpc/doc/health-checking.md) on HTTP/2 without TLS. A TCP probe is an accepted connection, and says nothing.
func health(port string) error {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	fmt.Println("serving")
	return (&http.Server{Addr: ":" + port, Handler: http.HandlerFunc(answerProbe), Protocols: protocols}).ListenAndServe()
}

func answerProbe(answer http.ResponseWriter, request *http.Request) {
	fmt.Println("asked", request.URL.Path)
	if request.URL.Path != "/grpc.health.v1.Health/Check" {
		fmt.Fprintln(answer, "good")
		return
	}
	answer.Header().Set("Content-Type", "application/grpc")
	answer.Header().Set("Trailer", "Grpc-Status")
	answer.Write([]byte{0, 0, 0, 0, 2, 8, 1}) // not compressed, 2 bytes: HealthCheckResponse{status: SERVING}
	answer.Header().Set("Grpc-Status", "0")
}
