package mem_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/dogestry/dogestry/internal/storage/mem"
	"github.com/dogestry/dogestry/internal/storage/storagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStore(t *testing.T) {
	storagetest.Run(t, storagetest.Harness{
		Open: func(*testing.T) storagetest.Target {
			s := mem.New()
			return storagetest.Target{A: s, B: s}
		},
		Create:    true,
		Ranges:    true,
		Conflicts: true,
		Large:     2 << 20, // there are no pieces
	})
}
