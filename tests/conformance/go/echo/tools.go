//go:build tools

// Package echo names the two programs that the suite's pods run, so that go.mod keeps what they need.
package echo

import (
	_ "istio.io/istio/pkg/test/echo/cmd/client"
	_ "istio.io/istio/pkg/test/echo/cmd/server"
)
