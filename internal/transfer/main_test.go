package transfer

import (
	"testing"

	"github.com/dogestry/dogestry/internal/enginetest"
)

func TestMain(m *testing.M) { enginetest.Main(m) }
