package cli

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/transfer"
)

// TestPrintComparison: what is told of each layer, and that names of files, which others chose, stay in their lines.
func TestPrintComparison(t *testing.T) {
	one, two := image.DigestOf([]byte("one")), image.DigestOf([]byte("two"))
	found := &transfer.Comparison{
		From: image.Reference{Repository: "app", Tag: "1"}, To: image.Reference{Repository: "app", Tag: "2"},
		Shared: 1, Stored: 3_000_000, Fetch: 1_012_000,
		Layers: []transfer.LayerComparison{
			{Digest: one, Size: 4_000_000, Stored: 2_000_000, Fetch: 12_000, Files: 9, Changed: 4, Names: []string{"a\nb", "\x1b[31mred", ""}, MoreNames: 1},
			{Digest: two, Size: -1, Stored: 1_000_000, Fetch: 1_000_000, Whole: "it has no chunk index"},
		},
	}
	for files, want := range map[bool][]string{
		false: nil,
		true: {
			one.Short() + "  a b",
			one.Short() + "  \ufffd[31mred",
			one.Short() + "  (what no header names)",
			one.Short() + "  (1 file more)",
		},
	} {
		var out strings.Builder
		a := &app{out: &out}
		if err := a.printComparison(found, files); err != nil {
			t.Fatal(err)
		}
		want := append(append([]string{
			"LAYER          SIZE   STORED   FETCH   FILES",
			one.Short() + "   4MB    2MB      12kB    4 of 9 files",
			two.Short() + "   ?      1MB      1MB     it has no chunk index",
		}, want...), "app:1 → app:2: 1.01MB to fetch, of 3MB stored; 1 layer shared", "")
		if diff := cmp.Diff(want, strings.Split(out.String(), "\n")); diff != "" {
			t.Error(diff)
		}
	}
}
