package chunk

import (
	"encoding/hex"
	"testing"
)

// TestSum: sums are what xxhsum -H2 prints, in pieces and at once.
func TestSum(t *testing.T) {
	long := make([]byte, 100_000)
	for i := range long {
		long[i] = byte(i * i >> 3)
	}
	for want, content := range map[string][]byte{
		"a96faf705af16834e6c632b61e964e1f": []byte("a"),
		"bb34bf7b2426ababde7b34649650c701": long,
	} {
		sum := SumOf(content)
		if got := hex.EncodeToString(sum[:]); got != want {
			t.Errorf("the sum of %d bytes is %s, want %s", len(content), got, want)
		}
		var h Hash
		for range 2 { // each sum begins anew
			for _, piece := range [][]byte{content[:len(content)/3], content[len(content)/3:]} {
				h.Write(piece)
			}
			if got := h.Sum(); got != sum {
				t.Errorf("the sum of %d bytes in pieces is %x", len(content), got)
			}
		}
	}
}
