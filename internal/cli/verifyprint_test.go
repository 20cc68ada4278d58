package cli

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/verify"
)

// exampleReport is one with everything in it.
func exampleReport() verified {
	app := image.Reference{Repository: "app", Tag: "1"}
	return verified{
		verification: verification{name: "./images", part: verify.Part{Number: 2, Of: 7}},
		report: &verify.Report{
			Images: 2, Documents: 3, Layers: 4, Bytes: 5_000_000,
			Findings: []verify.Finding{
				{Object: "images/aa/json", Problem: verify.Missing, Detail: "it is \x1b[31m gone", Images: []image.Reference{app}, Failure: "nobody has it"},
				{
					Object: "images/cc/layer.tar.lz4", Problem: verify.Damaged, Detail: "it has the content of another", Images: []image.Reference{app},
					Frames:     []verify.Frames{{Offset: 123456, Length: 22222, Files: []string{"usr/lib/ruby/a.so", "\x1b[31m\nred"}, More: 2}, {Offset: 200000, Length: 9}},
					MoreFrames: 3, Repaired: true,
				},
				{Object: "images/bb/blob", Problem: verify.Swapped, Detail: "it is another", Images: []image.Reference{app, {Repository: "app", Tag: "2"}}, Repaired: true},
			},
			Notes:        []verify.Note{{Object: "images/dd/layer.tar.zst", Detail: "its chunk index is damaged; the layer is whole"}},
			Unproved:     []verify.Unproved{{Images: []image.Reference{app}, Why: "format 1.0"}},
			Unreferenced: &verify.Unreferenced{Entries: 1, Bytes: 1_000},
		},
		unreferenced: []remote.Entry{{ID: image.DigestOf([]byte("x")), Objects: 2, Bytes: 1000, Modified: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}},
		took:         1500 * time.Millisecond,
	}
}

func printVerification(v verified, json bool) (stdout, stderr string, err error) {
	var out, errOut strings.Builder
	a := &app{out: &out, errOut: &errOut, json: json, caught: func() os.Signal { return nil }}
	err = a.printVerified(v)
	return out.String(), errOut.String(), err
}

func TestPrintVerified(t *testing.T) {
	stdout, stderr, err := printVerification(exampleReport(), false)
	if diff := cmp.Diff(`images/aa/json: missing: it is �[31m gone
  not repaired: nobody has it
  needed by app:1
images/cc/layer.tar.lz4: repaired, was damaged: it has the content of another
  at 123456–145678 (usr/lib/ruby/a.so, �[31m red, 2 files more)
  at 200000–200009
  and in 3 places more
  needed by app:1
images/bb/blob: repaired, was swapped: it is another
  needed by app:1, app:2
`, stdout); diff != "" {
		t.Errorf("stdout (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(`verified ./images: 2 images, 3 documents, 4 layers of part 2/7, 5MB in 1.5s
images/dd/layer.tar.zst: its chunk index is damaged; the layer is whole: `+"`dogestry index ./images`"+` writes it anew
not proved: app:1: format 1.0
no tag reaches 1 entry, 1kB: of pushes under way, or of tags that were moved or removed
`, stderr); diff != "" {
		t.Errorf("stderr (-want +got):\n%s", diff)
	}
	if !fault.Is(err, fault.Damaged) || err.Error() != "1 object in ./images: damaged or missing" || !strings.Contains(fault.AdviceOf(err), "--repair-from") {
		t.Errorf("%v, advice %q", err, fault.AdviceOf(err))
	}

	repaired := exampleReport()
	repaired.report.Findings = repaired.report.Findings[1:]
	if _, _, err := printVerification(repaired, false); err != nil {
		t.Errorf("all is repaired: %v", err)
	}
	stopped := exampleReport()
	stopped.repairFrom, stopped.report.Stopped = "engine", errors.New("no space left")
	if _, _, err := printVerification(stopped, false); !strings.Contains(fault.AdviceOf(err), "no space left") {
		t.Errorf("a repair that ended early: advice %q", fault.AdviceOf(err))
	}
	unreadable := exampleReport()
	unreadable.report.Findings[0].Problem = verify.Unreadable
	if _, _, err := printVerification(unreadable, false); fault.KindOf(err) != fault.Other || err.Error() != "1 object in ./images could not be read" {
		t.Errorf("one that cannot be read: %v", err)
	}
	broken := exampleReport()
	broken.err = fault.New(fault.Other, "the network is gone")
	stdout, stderr, err = printVerification(broken, false)
	if !strings.Contains(stdout, "images/aa/json: missing") || strings.Contains(stderr, "verified") || err == nil || err.Error() != "the network is gone" {
		t.Errorf("one that could not go on: %q, %q, %v", stdout, stderr, err)
	}
}

func TestPrintVerifiedJSON(t *testing.T) {
	stdout, _, err := printVerification(exampleReport(), true)
	if diff := cmp.Diff(`{
  "remote": "./images",
  "subset": "2/7",
  "images": 2,
  "documents": 3,
  "layers": 4,
  "bytes": 5000000,
  "findings": [
    {
      "object": "images/aa/json",
      "problem": "missing",
      "detail": "it is \u001b[31m gone",
      "images": [
        "app:1"
      ],
      "repaired": false,
      "failure": "nobody has it"
    },
    {
      "object": "images/cc/layer.tar.lz4",
      "problem": "damaged",
      "detail": "it has the content of another",
      "images": [
        "app:1"
      ],
      "frames": [
        {
          "offset": 123456,
          "length": 22222,
          "files": [
            "usr/lib/ruby/a.so",
            "\u001b[31m\nred"
          ],
          "moreFiles": 2
        },
        {
          "offset": 200000,
          "length": 9
        }
      ],
      "moreFrames": 3,
      "repaired": true
    },
    {
      "object": "images/bb/blob",
      "problem": "swapped",
      "detail": "it is another",
      "images": [
        "app:1",
        "app:2"
      ],
      "repaired": true
    }
  ],
  "notes": [
    {
      "object": "images/dd/layer.tar.zst",
      "detail": "its chunk index is damaged; the layer is whole"
    }
  ],
  "unproved": [
    {
      "images": [
        "app:1"
      ],
      "why": "format 1.0"
    }
  ],
  "unreferenced": {
    "entries": 1,
    "bytes": 1000,
    "list": [
      {
        "id": "sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881",
        "objects": 2,
        "bytes": 1000,
        "modified": "2026-01-02T03:04:05Z"
      }
    ]
  },
  "seconds": 1.5,
  "error": {
    "kind": "damaged",
    "message": "1 object in ./images: damaged or missing",
    "advice": "`+"`--repair-from` another remote, or an engine that has the image (`--repair-from engine`), writes it again."+`"
  }
}
`, stdout); diff != "" {
		t.Errorf("stdout (-want +got):\n%s", diff)
	}
	var told printed
	if !errors.As(err, &told) {
		t.Errorf("%v is not said to be printed", err)
	}
}
