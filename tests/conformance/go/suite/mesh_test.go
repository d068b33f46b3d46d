// Package suite is the upstream suite of Gateway API conformance as its own project compiles it; all is said by flags.
package suite

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
)

func TestMesh(t *testing.T) { conformance.RunConformance(t) }
