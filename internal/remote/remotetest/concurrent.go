package remotetest

import (
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"
)

const pushers = 8

// together calls run for each pusher, all of them at once.
func (s *suite) together(run func(pusher int) error) {
	s.Helper()
	var (
		g     errgroup.Group
		start sync.WaitGroup
	)
	start.Add(pushers)
	for i := range pushers {
		g.Go(func() error {
			start.Done()
			start.Wait()
			return run(i)
		})
	}
	if err := g.Wait(); err != nil {
		s.Error(err)
	}
}

func (s *suite) sameImageAtOnce() {
	for round := range 4 {
		img := s.image(fmt.Sprintf("round-%d", round), 3)
		ref := Ref(s.T, fmt.Sprintf("app:%d", round))
		s.together(func(i int) error {
			if _, err := Push(s.ctx(), s.both()[i%2], ref, img); err != nil {
				return fmt.Errorf("pusher %d: %w", i, err)
			}
			// Whoever was told that it is done can rely on it at once.
			_, err := Pull(s.ctx(), s.both()[(i+1)%2], ref)
			return err
		})
		s.holds(ref.String(), img)
		s.lacks(img, img.none())
	}
}

func (s *suite) manyTagsAtOnce() {
	shared := FileLayer(s.T, "shared", "shared")
	images := map[string]Image{}
	var names []string
	for i := range pushers {
		for _, name := range []string{fmt.Sprintf("app:%d", i), fmt.Sprintf("app-%d:1", i), fmt.Sprintf("team/app-%d:x", i)} {
			names = append(names, name)
			images[name] = NewImage(s.T, name, shared, FileLayer(s.T, "own", name))
		}
	}
	s.together(func(i int) error {
		for _, name := range names[3*i : 3*i+3] {
			if _, err := Push(s.ctx(), s.both()[i%2], Ref(s.T, name), images[name]); err != nil {
				return fmt.Errorf("pusher %d: %w", i, err)
			}
		}
		return nil
	})
	s.tags("", names...)
	for name, img := range images {
		s.holds(name, img)
	}

	// One tag, many images: one of them is left, whole.
	s.together(func(i int) error {
		_, err := Push(s.ctx(), s.both()[i%2], Ref(s.T, "app:one"), images[names[3*i]])
		return err
	})
	got, err := Pull(s.ctx(), s.A, Ref(s.T, "app:one"))
	if err != nil {
		s.Fatal(err)
	}
	for i := range pushers {
		if images[names[3*i]].ID == got.ID {
			s.holds("app:one", images[names[3*i]])
			return
		}
	}
	s.Errorf("the tag names %s, which nobody pushed", got.ID)
}
