package engine

import (
	"flag"
	"testing"

	"github.com/dogestry/dogestry/internal/enginetest"
)

// every is for `make test-engines`, which has time.
var every = flag.Bool("every", false, "TestEngineTrouble has 120 layers on Docker 20 too")

func TestMain(m *testing.M) { enginetest.Main(m) }
