package minio

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	neturl "net/url"
	"strconv"
	"strings"

	"github.com/firedrill/firedrill/pkg/control"
	"github.com/firedrill/firedrill/pkg/lazy"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/canary"
	"github.com/firedrill/firedrill/pkg/target/strict"
)

// Config describes a MinIO store: one deployment with its nodes, and the endpoint
// through which clients reach it.
type Config struct {
	// Endpoint is where clients connect, such as https://s3.example.net.
	Endpoint string `json:"endpoint"`
	// CAFile holds the certificates that sign the servers'; the system's if left out.
	CAFile string `json:"caFile"`
	// Bucket is where the canaries live. It exists, and should be of their own.
	Bucket string `json:"bucket"`
	// Prefix is what their keys begin with; "firedrill" if left out.
	Prefix string `json:"prefix"`
	// User and SecretKey are a client's: probes connect as it.
	User      string           `json:"user"`
	SecretKey target.SecretRef `json:"secretKey"`
	// Admin may read and set users' policies; only read-only needs it.
	Admin Account `json:"admin"`
	Nodes []Node  `json:"nodes"`
	// StateDir, on each node, keeps firedrill's own small state: timers, and copies
	// of the objects that a fault removes or damages. It lies outside the drives.
	StateDir string `json:"stateDir"`
	// ScratchDirs, on each node, are what fill-disk may fill: each of them and what
	// lies below it.
	ScratchDirs []string `json:"scratchDirs"`
	// BreakablePrefixes are prefixes of the bucket's keys, beside the canaries, below
	// which a drill may remove or damage objects.
	BreakablePrefixes []string `json:"breakablePrefixes"`
}

// Account is a user of the store.
type Account struct {
	User      string           `json:"user"`
	SecretKey target.SecretRef `json:"secretKey"`
}

// Node is one MinIO server.
type Node struct {
	Name string `json:"name"`
	// Host and Port are where the server listens.
	Host string `json:"host"`
	Port uint16 `json:"port"`
	// Drives are its data directories.
	Drives []string `json:"drives"`
	// Process is the name of its process; minio if left out.
	Process string `json:"process"`
	// Start is the command that starts it in the background and returns, such as
	// [systemctl, start, minio].
	Start []string `json:"start"`
	// Stop stops it in order; SIGTERM to the process, if left out. A server whose
	// supervisor starts it anew needs one.
	Stop []string `json:"stop"`
	// LogFile is what evidence takes the end of; optional.
	LogFile string         `json:"logFile"`
	Control control.Config `json:"control"`
}

// Address is where the server listens.
func (n Node) Address() Address { return Address{n.Host, n.Port} }

// Address is a host and port.
type Address struct {
	Host string
	Port uint16
}

// String is host:port.
func (a Address) String() string { return net.JoinHostPort(a.Host, strconv.Itoa(int(a.Port))) }

const (
	defaultPrefix  = "firedrill"
	defaultProcess = "minio"
)

var (
	bucketName  = lazy.Regexp(`^[a-z0-9][-.a-z0-9]{1,61}[a-z0-9]$`)
	nodeName    = lazy.Regexp(`^[a-zA-Z0-9][-_.a-zA-Z0-9]{0,62}$`)
	processName = lazy.Regexp(`^[-_.a-zA-Z0-9]{1,15}$`)
)

// parseConfig reads and checks a configuration without touching anything.
func parseConfig(raw json.RawMessage) (Config, error) {
	var c Config
	if err := strict.Decode(raw, &c); err != nil {
		return c, err
	}
	if c.Prefix == "" {
		c.Prefix = defaultPrefix
	}
	for i := range c.Nodes {
		if c.Nodes[i].Process == "" {
			c.Nodes[i].Process = defaultProcess
		}
	}
	var p strict.Problems
	c.check(&p)
	return c, errors.Join(p...)
}

func (c Config) check(p *strict.Problems) {
	if u, err := neturl.Parse(c.Endpoint); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || strings.ContainsAny(c.Endpoint, "?#") {
		p.Add("endpoint", "", "give http://host:port or https://host:port, without a user, a path or a query")
	}
	if c.CAFile != "" {
		p.Absolute("caFile", c.CAFile)
	}
	if !bucketName().MatchString(c.Bucket) || strings.Contains(c.Bucket, "..") {
		p.Add("bucket", c.Bucket, "give the bucket of the canaries: 3 to 63 small letters, digits, - and .")
	}
	if !canary.CleanName(c.Prefix) {
		p.Add("prefix", c.Prefix, "give a key without empty parts, . and .., and without / at its ends")
	}
	p.Need("user", c.User, "the user that probes connect as")
	p.Secret("secretKey", c.SecretKey)
	if c.SecretKey.IsZero() {
		p.Add("secretKey", "", "missing: refer to it with {env: NAME} or {file: PATH}")
	}
	p.Secret("admin.secretKey", c.Admin.SecretKey)
	if c.Admin.User != "" && c.Admin.User == c.User {
		p.Add("admin.user", c.Admin.User, "choose a user other than user: the probes' user loses rights in a drill")
	}
	p.Absolute("stateDir", c.StateDir)
	for i, dir := range c.ScratchDirs {
		p.Absolute(fmt.Sprintf("scratchDirs[%d]", i), dir)
	}
	for i, prefix := range c.BreakablePrefixes {
		if !canary.CleanName(strings.TrimSuffix(prefix, "/")) {
			p.Add(fmt.Sprintf("breakablePrefixes[%d]", i), prefix, "give a prefix without empty parts, . and ..; a drill may break every object below it")
		}
	}
	c.checkNodes(p)
}

func (c Config) checkNodes(p *strict.Problems) {
	if len(c.Nodes) == 0 {
		p.Add("nodes", "", "missing: list the servers of the store")
	}
	names, addresses := map[string]bool{}, map[string]bool{}
	for i, n := range c.Nodes {
		at := fmt.Sprintf("nodes[%d]", i)
		if !nodeName().MatchString(n.Name) {
			p.Add(at+".name", n.Name, "use letters, digits, - _ and ., at most 63")
		} else if names[n.Name] {
			p.Add(at+".name", n.Name, "used twice; names are unique")
		}
		names[n.Name] = true
		p.Need(at+".host", n.Host, "where the server listens")
		p.Port(at+".port", n.Port)
		if a := n.Address().String(); n.Port != 0 && addresses[a] {
			p.Add(at+".port", a, "another node has this address")
		}
		addresses[n.Address().String()] = true
		if len(n.Drives) == 0 {
			p.Add(at+".drives", "", "missing: list the server's data directories")
		}
		for j, d := range n.Drives {
			p.Absolute(fmt.Sprintf("%s.drives[%d]", at, j), d)
			if strict.Within(c.StateDir, d) {
				p.Add("stateDir", c.StateDir, "choose a directory outside the drives of node "+n.Name)
			}
		}
		if !processName().MatchString(n.Process) {
			p.Add(at+".process", n.Process, "give the process's name as ps -o comm shows it, at most 15 characters")
		}
		if len(n.Start) == 0 || n.Start[0] == "" {
			p.Add(at+".start", "", "missing: give the command that starts the server in the background, such as [systemctl, start, minio]")
		}
		if n.LogFile != "" {
			p.Absolute(at+".logFile", n.LogFile)
		}
		p.Place(at+".control", n.Control)
	}
}

// NodeNames lists the nodes of a configuration, which params.node is one of. It
// gives none unless each has a name: what is wrong there is said by Check.
func (Driver) NodeNames(config json.RawMessage) []string {
	var c struct {
		Nodes []struct {
			Name string `json:"name"`
		} `json:"nodes"`
	}
	if json.Unmarshal(config, &c) != nil {
		return nil
	}
	var names []string
	for _, n := range c.Nodes {
		if n.Name == "" {
			return nil
		}
		names = append(names, n.Name)
	}
	return names
}
