package agent

import (
	"cmp"
	"slices"
	"time"
)

// Status is what an agent says of itself. There is no URL in it that has a name.
type Status struct {
	Agent   int            `json:"agent"` // the version of what it can be asked: 1
	Version string         `json:"version"`
	Remotes []string       `json:"remotes"` // from which it may be asked to pull
	Pulls   []PullStatus   `json:"pulls"`
	Follows []FollowStatus `json:"follows"`
}

// PullStatus is a pull on its way.
type PullStatus struct {
	Remote  string    `json:"remote"`
	Images  []string  `json:"images"`
	Since   time.Time `json:"since"`
	Running bool      `json:"running"` // and not waiting for others
	Callers int       `json:"callers"`
	Status  string    `json:"status,omitempty"` // what it waits for
	Bytes   int64     `json:"bytes"`            // that have moved
}

// FollowStatus is a tag that is followed.
type FollowStatus struct {
	Remote  string     `json:"remote"`
	Image   string     `json:"image"`
	Named   string     `json:"named,omitempty"`   // what the tag named when it was looked at last
	Pulled  string     `json:"pulled,omitempty"`  // what it named when it was pulled last
	Handled string     `json:"handled,omitempty"` // for which the command is done
	ID      string     `json:"id,omitempty"`      // what the engine calls that image
	Looked  *time.Time `json:"looked,omitempty"`
	Error   string     `json:"error,omitempty"` // why it is not as the remote has it
}

func (a *Agent) status() Status {
	s := Status{Agent: 1, Version: a.o.Version, Remotes: []string{}, Pulls: a.jobs.status(), Follows: []FollowStatus{}}
	for _, r := range a.o.Allowed.Remotes {
		s.Remotes = append(s.Remotes, r.called())
	}
	for _, f := range a.follows {
		s.Follows = append(s.Follows, f.status())
	}
	return s
}

func (s *jobs) status() []PullStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := []PullStatus{}
	for j := range s.all {
		p := PullStatus{Remote: j.order.remote.called(), Since: j.began, Running: j.running, Callers: j.waiters}
		p.Status, p.Bytes = j.feed.moved()
		p.Status = j.order.remote.tell(p.Status)
		for _, i := range j.order.images {
			p.Images = append(p.Images, i.Source.String())
		}
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b PullStatus) int { return cmp.Or(a.Since.Compare(b.Since), slices.Compare(a.Images, b.Images)) })
	return all
}

// numbers returns how many pulls run, and how many wait.
func (s *jobs) numbers() (running, waiting int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running, len(s.all) - s.running
}
