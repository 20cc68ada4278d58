//go:build unix

package chunk

import (
	"bytes"
	"io"
	"os/exec"
	"sync"
	"syscall"
	"testing"

	"github.com/dogestry/dogestry/internal/codec"
)

// tarOfPrograms is a tar as layers are: 96 MiB, or what there is, of the programs of the machine that runs
// the benchmark.
var tarOfPrograms = sync.OnceValue(func() []byte {
	cmd := exec.Command("tar", "-C", "/usr", "-cf", "-", "lib")
	out, err := cmd.StdoutPipe()
	if err != nil {
		panic(err)
	}
	if err := cmd.Start(); err != nil {
		panic(err)
	}
	b, err := io.ReadAll(io.LimitReader(out, 96<<20))
	if err != nil {
		panic(err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	return b
})

// BenchmarkEncode compares a layer with an index to one without: MB of the tar per second of the processor.
func BenchmarkEncode(b *testing.B) {
	raw := tarOfPrograms()
	for _, c := range codecsWithFrames {
		for name, encode := range map[string]func(io.Reader) io.ReadCloser{
			"plain":   c.Encode,
			"indexed": func(src io.Reader) io.ReadCloser { return Encode(c, src) },
		} {
			b.Run(c.Name()+"/"+name, func(b *testing.B) {
				b.SetBytes(int64(len(raw)))
				before := processorTime()
				var n int64
				for b.Loop() {
					r := encode(struct{ io.Reader }{bytes.NewReader(raw)})
					var err error
					if n, err = io.Copy(struct{ io.Writer }{io.Discard}, r); err != nil {
						b.Fatal(err)
					}
					r.Close()
				}
				b.ReportMetric(float64(len(raw))*float64(b.N)/1e6/(processorTime()-before), "MB/cpu-s")
				b.ReportMetric(100*float64(n)/float64(len(raw)), "%size")
			})
		}
	}
}

// BenchmarkSplit is the splitter alone.
func BenchmarkSplit(b *testing.B) {
	raw := tarOfPrograms()
	b.SetBytes(int64(len(raw)))
	buffer := make([]byte, frameMost)
	before := processorTime()
	for b.Loop() {
		s := newSplitter(bytes.NewReader(raw), targets[codec.LZ4])
		for err := error(nil); err == nil; {
			_, err = s.next(buffer)
		}
	}
	b.ReportMetric(float64(len(raw))*float64(b.N)/1e6/(processorTime()-before), "MB/cpu-s")
}

// processorTime is how many seconds the process has used.
func processorTime() float64 {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		panic(err)
	}
	return float64(r.Utime.Nano()+r.Stime.Nano()) / 1e9
}
