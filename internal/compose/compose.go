// Package compose reads which images the services of Compose files use (the Compose
// Specification, compose-spec.io).
package compose

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strings"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/sirupsen/logrus"

	"github.com/dogestry/dogestry/internal/fault"
)

// Options say which services are meant.
type Options struct {
	// Profiles are those whose services count too, besides those of COMPOSE_PROFILES and
	// services without any. "*" is all.
	Profiles []string

	Warn func(line string) // is told of variables that are not set, and the like; may be nil
}

// Service is one that uses an image.
type Service struct {
	Name  string
	Image string // as the files have it, after interpolation; "project-service" of one that is built and has no image
}

// Services returns the services of files, of which later ones override earlier ones, in
// the order of their names. Variables are those of the environment, and of .env beside the
// first file. Nothing but files is read. Errors are Usage faults, and NotFound where a file
// is missing. It is not safe for concurrent use.
func Services(ctx context.Context, files []string, o Options) ([]Service, error) {
	for _, name := range files {
		if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
			return nil, fault.New(fault.NotFound, "there is no Compose file %s", name)
		}
	}
	defer warnings(o.Warn)()
	options, err := cli.NewProjectOptions(files, cli.WithOsEnv, cli.WithEnvFiles(), cli.WithDotEnv, cli.WithDefaultProfiles(o.Profiles...),
		// What containers get is no matter of images: files of it need not be there.
		cli.WithoutEnvironmentResolution, cli.WithoutLabelsResolution,
		cli.WithLoadOptions(func(l *loader.Options) { l.SkipConsistencyCheck = true }))
	var project *types.Project
	if err != nil {
		err = withoutValues(err)
	} else {
		project, err = options.LoadProject(ctx)
	}
	if err != nil {
		if fault.Interrupted(err) {
			return nil, err
		}
		return nil, fault.Wrap(fault.Usage, err, "cannot read %s as a Compose file", strings.Join(files, ", "))
	}
	var services []Service
	for _, name := range project.ServiceNames() {
		s := project.Services[name]
		image := s.Image
		if image == "" && s.Build != nil {
			image = project.Name + "-" + name
		}
		if image != "" {
			services = append(services, Service{name, image})
		}
	}
	return services, nil
}

// inEnvFile is how compose-go tells of what it could not understand in .env.
var inEnvFile = regexp.MustCompile(`^(failed to read .+?: )(line \d+: )?`)

// withoutValues leaves out of an error what of .env is quoted in it: passwords are there.
func withoutValues(err error) error {
	found := inEnvFile.FindStringSubmatch(err.Error())
	if found == nil {
		return err
	}
	return errors.New(found[1] + found[2] + "it is not written NAME=VALUE (what is there is not shown, for it may be secret)")
}

// warnings gives to warn what compose-go would write to the process's stderr, until it
// is restored.
func warnings(warn func(string)) (restore func()) {
	l := logrus.StandardLogger()
	out := l.Out
	l.SetOutput(io.Discard)
	before := l.ReplaceHooks(logrus.LevelHooks{})
	if warn != nil {
		l.AddHook(hook(warn))
	}
	return func() {
		l.SetOutput(out)
		l.ReplaceHooks(before)
	}
}

// hook implements logrus.Hook.
type hook func(line string)

// Levels implements logrus.Hook.
func (hook) Levels() []logrus.Level {
	return []logrus.Level{logrus.WarnLevel, logrus.ErrorLevel}
}

// Fire implements logrus.Hook.
func (h hook) Fire(e *logrus.Entry) error {
	h(e.Message)
	return nil
}
