//go:build unix

package codec

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

// tarOfPrograms is a tar as layers are: 256 MiB, or what there is, of the
// programs and data of the machine that runs the benchmark.
var tarOfPrograms = sync.OnceValue(func() []byte {
	const most = 256 << 20
	cmd := exec.Command("tar", "-C", "/usr", "-cf", "-", "lib", "share")
	out, err := cmd.StdoutPipe()
	if err != nil {
		panic(err)
	}
	if err := cmd.Start(); err != nil {
		panic(err)
	}
	b, err := io.ReadAll(io.LimitReader(out, most))
	if err != nil {
		panic(err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	return b
})

// onlyReader hides all but Read, as the pipes and sockets of real streams do.
type onlyReader struct{ io.Reader }

type onlyWriter struct{ io.Writer }

// measure reports MB of decoded bytes per second, on the clock and of the processor.
func measure(b *testing.B, decoded, src []byte, open func(io.Reader) io.ReadCloser) {
	b.SetBytes(int64(len(decoded)))
	b.ReportAllocs()
	before := processorTime(syscall.RUSAGE_SELF)
	var n int64
	for b.Loop() {
		r := open(onlyReader{bytes.NewReader(src)})
		var err error
		if n, err = io.CopyBuffer(onlyWriter{io.Discard}, onlyReader{r}, make([]byte, 256<<10)); err != nil {
			b.Fatal(err)
		}
		r.Close()
	}
	used := processorTime(syscall.RUSAGE_SELF) - before
	b.ReportMetric(float64(len(decoded))*float64(b.N)/1e6/used, "MB/cpu-s")
	if int(n) != len(decoded) {
		b.ReportMetric(100*float64(n)/float64(len(decoded)), "%size")
	}
}

func processorTime(who int) float64 {
	var r syscall.Rusage
	if err := syscall.Getrusage(who, &r); err != nil {
		panic(err)
	}
	return float64(r.Utime.Nano()+r.Stime.Nano()) / 1e9
}

func BenchmarkEncode(b *testing.B) {
	for _, c := range []Codec{LZ4, Zstd} {
		b.Run(c.Name(), func(b *testing.B) { measure(b, tarOfPrograms(), tarOfPrograms(), c.Encode) })
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, c := range []Codec{LZ4, Zstd} {
		b.Run(c.Name(), func(b *testing.B) { measure(b, tarOfPrograms(), encode(b, c, tarOfPrograms()), c.Decode) })
	}
}

// BenchmarkSmall is a layer of 2 KiB, of which images have many.
func BenchmarkSmall(b *testing.B) {
	for _, c := range []Codec{LZ4, Zstd} {
		b.Run(c.Name(), func(b *testing.B) {
			b.ReportAllocs()
			for src := sample(2048); b.Loop(); {
				if got, err := readAll(b, c.Decode(bytes.NewReader(encode(b, c, src)))); err != nil || len(got) != len(src) {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkCommand is what the programs do with the same bytes, from and to files.
func BenchmarkCommand(b *testing.B) {
	plain := filepath.Join(b.TempDir(), "tar")
	if err := os.WriteFile(plain, tarOfPrograms(), 0o600); err != nil {
		b.Fatal(err)
	}
	for _, line := range [][]string{
		{"lz4", "-1qc", "--no-frame-crc", plain},
		{"lz4", "-dqc", plain + ".lz4"},
		{"zstd", "-1qc", plain},
		{"zstd", "-dqc", plain + ".zst"},
	} {
		b.Run(line[0]+line[1], func(b *testing.B) {
			if _, err := os.Stat(line[len(line)-1]); err != nil {
				pack := map[string]Codec{"lz4": LZ4, "zstd": Zstd}[line[0]]
				if err := os.WriteFile(line[len(line)-1], encode(b, pack, tarOfPrograms()), 0o600); err != nil {
					b.Fatal(err)
				}
			}
			b.SetBytes(int64(len(tarOfPrograms())))
			before := processorTime(syscall.RUSAGE_CHILDREN)
			for b.Loop() {
				if err := exec.Command(line[0], line[1:]...).Run(); err != nil {
					b.Fatal(err)
				}
			}
			used := processorTime(syscall.RUSAGE_CHILDREN) - before
			b.ReportMetric(float64(len(tarOfPrograms()))*float64(b.N)/1e6/used, "MB/cpu-s")
		})
	}
}

// BenchmarkDecodeFrames is a stream of one frame, as Encode makes it, and one of
// many that can be decoded apart.
func BenchmarkDecodeFrames(b *testing.B) {
	for _, c := range []Codec{LZ4, Zstd} {
		plain := tarOfPrograms()[:64<<20]
		b.Run(c.Name()+"/one", func(b *testing.B) { measure(b, plain, encode(b, c, plain), c.Decode) })
		b.Run(c.Name()+"/many", func(b *testing.B) { measure(b, plain, inFrames(b, c, plain, 128<<10), c.Decode) })
	}
}
