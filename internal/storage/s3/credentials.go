package s3

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/sealed"
)

// wallet is where credentials come from, with errors that may be shown: those
// of the SDK can have the whole output of a credential_process in them.
type wallet struct {
	aws.CredentialsProvider
	had atomic.Bool // once it gave some
}

// Retrieve implements aws.CredentialsProvider.
func (w *wallet) Retrieve(ctx context.Context) (aws.Credentials, error) {
	c, err := w.CredentialsProvider.Retrieve(ctx)
	switch {
	case err == nil:
		w.had.Store(true)
	case ctx.Err() != nil:
		err = ctx.Err()
	default:
		err = &noCredentials{w.origin(), harmless(err), nobody(err), w.had.Load(), sealed.Refusal(err)}
	}
	return c, err
}

// ProviderSources implements aws.CredentialProviderSource.
func (w *wallet) ProviderSources() []aws.CredentialSource {
	if p, ok := w.CredentialsProvider.(aws.CredentialProviderSource); ok {
		return p.ProviderSources()
	}
	return nil
}

// origin is the last step on the way to the credentials: the one that is asked first.
func (w *wallet) origin() aws.CredentialSource {
	if all := w.ProviderSources(); len(all) > 0 {
		return all[len(all)-1]
	}
	return aws.CredentialSourceUndefined
}

// noCredentials is the error of a request that could not be signed. It does not
// unwrap to what the SDK said.
type noCredentials struct {
	from   aws.CredentialSource
	why    string // may be empty
	nobody bool   // there is none who could give any
	had    bool   // there were some before

	refusal *fault.Error // where they might be, and dogestry is sealed; else nil
}

func (e *noCredentials) Error() string {
	source, _ := e.asked()
	if e.why == "" {
		return "no credentials from " + source
	}
	return "no credentials from " + source + " (" + e.why + ")"
}

// RetryableError says that asking again would not help: whoever gives the
// credentials was asked again already.
func (e *noCredentials) RetryableError() bool { return false }

// asked returns who was asked for the credentials, and what to do about it.
func (e *noCredentials) asked() (source, advice string) {
	switch e.from {
	case aws.CredentialSourceSTSAssumeRole:
		return "the role of the profile",
			"Look at role_arn in ~/.aws/config, and whether who assumes the role may do so. If a session has expired, log in again."
	case aws.CredentialSourceEnvVarsSTSWebIDToken, aws.CredentialSourceProfileSTSWebIDToken, aws.CredentialSourceSTSAssumeRoleWebID:
		return "the web identity token",
			"Look at the file of the token (AWS_WEB_IDENTITY_TOKEN_FILE) and at AWS_ROLE_ARN: the role must trust that identity."
	case aws.CredentialSourceSSO, aws.CredentialSourceProfileSSO, aws.CredentialSourceSSOLegacy, aws.CredentialSourceProfileSSOLegacy:
		return "the SSO session",
			"Log in again: aws sso login."
	case aws.CredentialSourceLogin, aws.CredentialSourceProfileLogin:
		return "the session of aws login",
			"Log in again: aws login."
	case aws.CredentialSourceProcess, aws.CredentialSourceProfileProcess:
		return "the credential_process of the profile",
			"Log in again where that command needs it, and run it by hand: on stdout it must print one JSON document, and nothing else."
	case aws.CredentialSourceHTTP:
		return "the container's endpoint",
			"Look at AWS_CONTAINER_CREDENTIALS_FULL_URI, or AWS_CONTAINER_CREDENTIALS_RELATIVE_URI, and at the role of the container."
	case aws.CredentialSourceIMDS:
		return "the instance's role",
			"Look at the role of the instance."
	default:
		return "the profile",
			"Log in again: aws sso login, or what your AWS_PROFILE uses."
	}
}

// unsigned is the fault of a request for which there are no credentials.
func (o Options) unsigned(e *noCredentials) error {
	if e.refusal != nil {
		f := fault.Wrap(fault.Refused, e.refusal, "no AWS credentials for %s", o.url())
		if e.from == aws.CredentialSourceIMDS { // where the search ends
			return f.Advise("Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. Where the instance has a role:\n%s", e.refusal.Advice)
		}
		return f
	}
	if e.nobody && !e.had { // where the search ends
		return fault.New(fault.Refused, "no AWS credentials for %s", o.url()).
			Advise("Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; on a public bucket add ?anonymous=true.")
	}
	_, advice := e.asked()
	f := fault.New(fault.Refused, "cannot get AWS credentials for %s: %s", o.url(), e)
	if e.had {
		f.Message = fmt.Sprintf("the AWS credentials for %s have expired, and there are no new ones: %s", o.url(), e)
		return f.Advise("%s Then run the same command again: what is stored stays.", advice)
	}
	return f.Advise("%s", advice)
}

// word is what services call a failure.
var word = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._]{0,63}$`)

// harmless returns what may be told of why somebody gives no credentials: never
// the text of an error that may quote what was given.
func harmless(err error) string {
	var path *fs.PathError
	var exit *exec.ExitError
	var op *net.OpError
	var host *net.DNSError
	c, _ := code(err)
	status := answered(err)
	switch {
	case word.MatchString(c):
		return c
	case status != 0:
		return fmt.Sprintf("the answer was %d %s", status, http.StatusText(status))
	case errors.As(err, &exit):
		return exit.ProcessState.String()
	case errors.As(err, &path):
		return path.Error()
	case errors.As(err, &host):
		return host.Error()
	case errors.As(err, &op):
		return op.Error()
	case errors.Is(err, context.DeadlineExceeded):
		return "it takes too long"
	}
	return ""
}

// answered is the HTTP status of an answer, 0 without one. Metadata services and
// endpoints of containers have errors of their own.
func answered(err error) int {
	var answer interface{ HTTPStatusCode() int }
	if errors.As(err, &answer) {
		return answer.HTTPStatusCode()
	}
	return 0
}

// nobody reports whether the machine has no metadata service, or that no role.
func nobody(err error) bool {
	status := answered(err)
	return strings.Contains(err.Error(), "no EC2 IMDS role found") && (status == 0 || status == http.StatusNotFound)
}

// credentialAttempts are few: most machines have no metadata service, and nobody
// should wait for it.
const credentialAttempts = 3

// credentialRetryer is for requests to whoever gives credentials: their failures
// are not the bucket's, and their texts are not for everybody.
func credentialRetryer(o Options) *retryer {
	notify := o.Notify
	o.Notify = nil
	if o.Attempts == 0 || o.Attempts > credentialAttempts {
		o.Attempts = credentialAttempts
	}
	r := newRetryer(o)
	if notify != nil {
		r.tell = func(_ error, d time.Duration) {
			notify(fmt.Sprintf("the service that gives AWS credentials does not answer as it should, trying again in %s", d.Round(100*time.Millisecond)))
		}
	}
	return r
}
