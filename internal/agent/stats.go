package agent

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

// stats counts what an agent does. It is safe for concurrent use.
type stats struct {
	mu      sync.Mutex
	pulls   map[string]int // by how they ended
	denied  int
	waiters int
	follows []*followStats
}

// followStats are those of a tag that is followed. They are guarded by stats.mu.
type followStats struct {
	remote, image string
	moves         int
	failures      map[string]int // by what failed
	success       time.Time      // when all was as the remote has it, last
}

func newStats() *stats { return &stats{pulls: map[string]int{"done": 0, "failed": 0}} }

func (s *stats) count(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *stats) refused() { s.count(func() { s.denied++ }) }

func (s *stats) pulled(err error) {
	how := "done"
	if err != nil {
		how = "failed"
	}
	s.count(func() { s.pulls[how]++ })
}

// wait counts a caller that waits, until ended.
func (s *stats) wait() (ended func()) {
	s.count(func() { s.waiters++ })
	return func() { s.count(func() { s.waiters-- }) }
}

func (s *stats) follow(remote, image string) *followStats {
	f := &followStats{remote: remote, image: image, failures: map[string]int{"look": 0, "pull": 0, "command": 0, "state": 0}}
	s.count(func() { s.follows = append(s.follows, f) })
	return f
}

// WriteMetrics writes what it has counted in Prometheus' text exposition format 0.0.4.
func (a *Agent) WriteMetrics(w io.Writer) {
	running, waiting := a.jobs.numbers()
	s := a.stats
	s.mu.Lock()
	defer s.mu.Unlock()
	family := func(name, kind, help string) {
		fmt.Fprintf(w, "# HELP dogestry_agent_%s %s\n# TYPE dogestry_agent_%s %s\n", name, help, name, kind)
	}
	family("pulls_total", "counter", "Pulls that have ended, those of followed tags too.")
	for _, how := range []string{"done", "failed"} {
		fmt.Fprintf(w, "dogestry_agent_pulls_total{result=%q} %d\n", how, s.pulls[how])
	}
	family("refused_total", "counter", "Requests for remotes or images that are not allowed.")
	fmt.Fprintf(w, "dogestry_agent_refused_total %d\n", s.denied)
	family("pulls_running", "gauge", "Pulls on their way.")
	fmt.Fprintf(w, "dogestry_agent_pulls_running %d\n", running)
	family("pulls_waiting", "gauge", "Pulls that wait for others.")
	fmt.Fprintf(w, "dogestry_agent_pulls_waiting %d\n", waiting)
	family("callers", "gauge", "Callers that wait for a pull.")
	fmt.Fprintf(w, "dogestry_agent_callers %d\n", s.waiters)
	if len(s.follows) == 0 {
		return
	}
	follows := slices.SortedFunc(slices.Values(s.follows), func(a, b *followStats) int {
		return cmp.Or(cmp.Compare(a.remote, b.remote), cmp.Compare(a.image, b.image))
	})
	family("follows", "gauge", "Tags that are followed.")
	fmt.Fprintf(w, "dogestry_agent_follows %d\n", len(follows))
	family("follow_success_seconds", "gauge", "When the image of a followed tag was here last, and its command done, in seconds since 1970; 0 is never.")
	for _, f := range follows {
		var at int64
		if !f.success.IsZero() {
			at = f.success.Unix()
		}
		fmt.Fprintf(w, "dogestry_agent_follow_success_seconds{remote=%q,image=%q} %d\n", f.remote, f.image, at)
	}
	family("follow_moves_total", "counter", "How often a followed tag has moved.")
	for _, f := range follows {
		fmt.Fprintf(w, "dogestry_agent_follow_moves_total{remote=%q,image=%q} %d\n", f.remote, f.image, f.moves)
	}
	family("follow_failures_total", "counter", "What failed of a followed tag: to look at it, to pull it, the command, to write down what was done.")
	for _, f := range follows {
		for _, what := range []string{"command", "look", "pull", "state"} {
			fmt.Fprintf(w, "dogestry_agent_follow_failures_total{remote=%q,image=%q,what=%q} %d\n", f.remote, f.image, what, f.failures[what])
		}
	}
}
