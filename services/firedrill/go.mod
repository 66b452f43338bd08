module github.com/firedrill/firedrill/services/firedrill

go 1.26.0

require (
	github.com/firedrill/firedrill/pkg v0.0.0
	github.com/firedrill/firedrill/schemas v0.0.0
	github.com/firedrill/firedrill/services/injector v0.0.0
	github.com/firedrill/firedrill/services/observer v0.0.0
	github.com/firedrill/firedrill/services/mirror v0.0.0
	github.com/firedrill/firedrill/services/validator v0.0.0
	github.com/firedrill/firedrill/services/reporter v0.0.0
)

replace (
	github.com/firedrill/firedrill/pkg => ../../pkg
	github.com/firedrill/firedrill/schemas => ../../schemas
	github.com/firedrill/firedrill/services/injector => ../injector
	github.com/firedrill/firedrill/services/observer => ../observer
	github.com/firedrill/firedrill/services/mirror => ../mirror
	github.com/firedrill/firedrill/services/validator => ../validator
	github.com/firedrill/firedrill/services/reporter => ../reporter
)
