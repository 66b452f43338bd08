module github.com/firedrill/firedrill/schemas

go 1.26.0
