//go:build tools

// Pins the conformance suite and what it is made of; `test_h2spec.py` builds it.
package tools

import _ "github.com/summerwind/h2spec/cmd/h2spec"
