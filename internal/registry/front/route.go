package front

import "strings"

// route is what a request is about: a label of metrics and log, and what its limits
// go by. There are few, whatever paths somebody thinks of.
type route string

const (
	healthRoute    route = "health"
	metricsRoute   route = "metrics"
	pageRoute      route = "page"
	apiRoute       route = "api" // where there is one
	baseRoute      route = "base"
	catalogRoute   route = "catalog"
	tagsRoute      route = "tags"
	manifestRoute  route = "manifests"
	referrersRoute route = "referrers"
	blobRoute      route = "blobs"
	uploadRoute    route = "uploads"
	otherRoute     route = "other" // what the registry has to refuse
)

// route is routeOf, where an API may have its own.
func (f *front) route(path string) route {
	if f.o.API != nil && strings.HasPrefix(path, "/v1/") {
		return apiRoute
	}
	return routeOf(path)
}

// routeOf follows the OCI distribution specification 1.1, "Endpoints". It says what a
// path is meant as; whether it is right is for the registry to say.
func routeOf(path string) route {
	switch path {
	case "/healthz":
		return healthRoute
	case "/metrics":
		return metricsRoute
	case "/v2", "/v2/":
		return baseRoute
	case "/v2/_catalog":
		return catalogRoute
	}
	rest, ok := strings.CutPrefix(path, "/v2/")
	if !ok {
		return pageRoute
	}
	parts := strings.Split(rest, "/")
	from := func(end int) string { // counted from the end, 1 is the last
		if end >= len(parts) {
			return "" // the first is of the repository's name
		}
		return parts[len(parts)-end]
	}
	switch {
	case from(2) == "manifests":
		return manifestRoute
	case from(2) == "tags" && from(1) == "list":
		return tagsRoute
	case from(2) == "referrers":
		return referrersRoute
	case from(3) == "blobs" && from(2) == "uploads", from(2) == "blobs" && from(1) == "uploads":
		return uploadRoute
	case from(2) == "blobs":
		return blobRoute
	}
	return otherRoute
}
