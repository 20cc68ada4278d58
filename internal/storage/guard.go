package storage

import "context"

type guardKey struct{}

// WithGuard returns a context under which writes and deletions take effect only
// if check allows them at the last moment: a store calls it when all else is done,
// on S3 after the request is signed and again before each retry, and returns its
// error instead of going on. So what check has found out is never older than the
// time that a server accepts a signed request, 15 minutes on S3.
//
// check gets a context without the guard and may use the store. It may be called
// several times, also at once.
func WithGuard(ctx context.Context, check func(context.Context) error) context.Context {
	return context.WithValue(ctx, guardKey{}, check)
}

// Allowed calls the guard of ctx; nil where it has none. Stores call it.
func Allowed(ctx context.Context) error {
	check, _ := ctx.Value(guardKey{}).(func(context.Context) error)
	if check == nil {
		return nil
	}
	return check(context.WithValue(ctx, guardKey{}, nil))
}
