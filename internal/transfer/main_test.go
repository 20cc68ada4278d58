package transfer

import (
	"flag"
	"testing"

	"github.com/dogestry/dogestry/internal/enginetest"
)

// every is for `make test-engines`, which has time.
var every = flag.Bool("every", false, "fail every operation, load in every way and on every kind of engine, move larger real images and 120 layers; without it a sample of each")

func TestMain(m *testing.M) { enginetest.Main(m) }
