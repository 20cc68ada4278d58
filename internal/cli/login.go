package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/registry/client"
)

func (a *app) loginCommand() *cobra.Command {
	var user string
	var stdin bool
	c := &cobra.Command{
		Use:   "login [flags] HOST",
		Short: "Log in at a registry, and keep that where docker does",
		Long: `Log in at a registry. The registry is asked whether it takes the user and password
before they are stored, where ` + "`docker login`" + ` keeps them: with the credential helper
that docker's configuration names, else in that, unencrypted. docker, and all who
read its configuration, are logged in then, too.

HOST is host[:port], the URL of a remote registry://…, or the name of one. The
password comes from stdin or from a terminal, and never from the command line.`,
		Example: `  dogestry login registry.example.com
  dogestry login registry.example.com --username ci --password-stdin <secret.txt`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if stdin && user == "" {
				return fault.New(fault.Usage, "--password-stdin goes with --username")
			}
			o, err := a.loginAt(args[0])
			if err != nil {
				return err
			}
			return a.login(c.Context(), o, user, stdin)
		},
	}
	c.Flags().StringVarP(&user, "username", "u", "", "the `USER`; without it, a terminal is asked")
	c.Flags().BoolVar(&stdin, "password-stdin", false, "read the password from stdin")
	return c
}

// loginAt says which registry is meant.
func (a *app) loginAt(host string) (o client.Options, err error) {
	if r, ok := a.set.Remotes[host]; ok {
		host = r.URL.Value
	}
	if !isRegistry(host) {
		if strings.Contains(host, "://") {
			return o, fault.New(fault.Usage, "that is no registry").Advise("Write it as host:port, or registry://host:port.")
		}
		host = "registry://" + host
	}
	address, err := client.Parse(host)
	if err != nil {
		return o, err
	}
	return client.Options{Address: address, Name: host, Seal: a.seal, CertsDir: dockerCerts, Log: a.log(), Notify: a.note}, nil
}

func (a *app) login(ctx context.Context, o client.Options, user string, stdin bool) error {
	var password string
	var err error
	if !stdin && !a.canAsk() {
		return fault.New(fault.Usage, "there is no terminal to ask for a password on").
			Advise("Let it come from stdin: --username USER --password-stdin.")
	}
	if user == "" {
		if user, err = a.ask(ctx, "Username: "); err != nil {
			return err
		}
	}
	if stdin {
		password, err = readSecret(a.in)
	} else {
		password, err = a.askSecret(ctx, "Password: ")
	}
	switch {
	case err != nil:
		return err
	case user == "" || strings.ContainsAny(user, ":\r\n"): // no colon: basic authentication, RFC 7617
		return fault.New(fault.Usage, "%.40q is no user", user)
	case password == "":
		return fault.New(fault.Usage, "the password is empty")
	}
	given := client.Credentials{User: user, Password: password}
	o.Credentials = func(context.Context, string) (client.Credentials, error) { return given, nil }
	if err := client.Login(ctx, o); err != nil {
		return err
	}
	if err := client.StoreCredentials("", o.Host, given, a.seal); err != nil {
		return err
	}
	if a.json {
		a.printJSON(map[string]any{"registry": o.Host, "user": user})
		return nil
	}
	_, err = fmt.Fprintf(a.out, "logged in at %s as %s\n", o.Host, oneLine(user))
	return err
}

// maxSecret bounds a password, in bytes.
const maxSecret = 64 << 10

// readSecret reads a password, which a line feed may end.
func readSecret(in io.Reader) (string, error) {
	secret, err := io.ReadAll(io.LimitReader(in, maxSecret+1))
	if err != nil {
		return "", fault.Wrap(fault.Other, err, "cannot read the password")
	}
	if len(secret) > maxSecret {
		return "", fault.New(fault.Usage, "the password is longer than %d bytes", maxSecret)
	}
	return strings.TrimRight(string(secret), "\r\n"), nil
}

// askSecret asks on stderr, and shows nothing of the answer.
func (a *app) askSecret(ctx context.Context, question string) (string, error) {
	fd := int(a.in.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", fault.Wrap(fault.Other, err, "cannot ask for a password")
	}
	fmt.Fprint(a.errOut, question)
	type answer struct {
		text []byte
		err  error
	}
	answers := make(chan answer, 1)
	go func() { // see ask
		text, err := term.ReadPassword(fd)
		answers <- answer{text, err}
	}()
	defer fmt.Fprintln(a.errOut)
	select {
	case got := <-answers:
		if errors.Is(got.err, io.EOF) {
			got.err = nil
		}
		return string(got.text), errors.Join(got.err, ctx.Err())
	case <-ctx.Done():
		return "", errors.Join(ctx.Err(), term.Restore(fd, before))
	}
}

func (a *app) logoutCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "logout HOST",
		Short: "Forget the user and password for a registry, as `docker logout` does",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			o, err := a.loginAt(args[0])
			if err != nil {
				return err
			}
			were, err := client.EraseCredentials("", o.Host, a.seal)
			if err != nil {
				return err
			}
			if a.json {
				a.printJSON(map[string]any{"registry": o.Host, "was": were})
				return nil
			}
			verb := "logged out of"
			if !were {
				verb = "was not logged in at"
			}
			_, err = fmt.Fprintf(a.out, "%s %s\n", verb, o.Host)
			return err
		},
	}
}
