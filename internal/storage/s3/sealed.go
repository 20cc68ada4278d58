package s3

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/endpointcreds"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/sealed"
)

// client is what the bucket and all services that give credentials are asked with.
func (o Options) client() *awshttp.BuildableClient {
	return awshttp.NewBuildableClient().
		WithDialerOptions(func(d *net.Dialer) { d.Timeout = 10 * time.Second }).
		WithTransportOptions(func(t *http.Transport) { o.Seal.Transport(t) })
}

// containerVariable holds the URL of an endpoint that gives credentials.
const containerVariable = "AWS_CONTAINER_CREDENTIALS_FULL_URI"

// sealedLoads are for where the SDK would go around the client: it has one of its
// own for the endpoint of a container, and looks up the name in its URL before.
func (o Options) sealedLoads() ([]func(*config.LoadOptions) error, error) {
	if u, err := url.Parse(os.Getenv(containerVariable)); err == nil && u.Scheme == "http" && u.Hostname() != "localhost" {
		if _, err := netip.ParseAddr(u.Hostname()); err != nil {
			if err := o.Seal.Check("tcp", sealed.HostPort(u)); err != nil {
				return nil, fault.Wrap(fault.Refused, err, "cannot use %s for %s", containerVariable, o.url())
			}
		}
	}
	client := o.client()
	return []func(*config.LoadOptions) error{
		config.WithEndpointCredentialOptions(func(e *endpointcreds.Options) { e.HTTPClient = client }),
	}, nil
}

// checkProcess refuses a credential_process that may not be run, before it is.
func (o Options) checkProcess(c aws.Config) error {
	from, ok := c.Credentials.(aws.CredentialProviderSource)
	if o.Seal == nil || !ok || !slices.Contains(from.ProviderSources(), aws.CredentialSourceProcess) {
		return nil
	}
	for _, source := range c.ConfigSources {
		shared, ok := source.(config.SharedConfig)
		if !ok {
			continue
		}
		for shared.Source != nil { // a role's, whose source has the process
			shared = *shared.Source
		}
		if err := o.Seal.Command(shared.CredentialProcess); err != nil {
			return fault.Wrap(fault.Refused, err, "cannot get AWS credentials for %s from the credential_process of the profile", o.url())
		}
		return nil
	}
	return o.Seal.Command("")
}

// admit lets the host be dialled where the bucket is, which the SDK finds out by
// the URL of the remote and the AWS configuration. Where an answer redirects to
// is another matter: nothing follows it.
func (s *Store) admit(stack *middleware.Stack) error {
	return stack.Finalize.Insert(middleware.FinalizeMiddlewareFunc("dogestry:Admit",
		func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
			if r, ok := in.Request.(*smithyhttp.Request); ok {
				s.o.Seal.Admit("tcp", sealed.HostPort(r.URL))
			}
			return next.HandleFinalize(ctx, in)
		}), "ResolveEndpointV2", middleware.After)
}
