package drill

import (
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
)

// Store is an object store that mirrors may use by its name: s3:name/bucket/prefix.
type Store struct {
	Name string `json:"name"`
	// Endpoint is the server's URL without a path, such as https://s3.example:9000.
	Endpoint string `json:"endpoint"`
	Region   string `json:"region,omitempty"`
	// CAFile holds the certificates that vouch for the server's; the system's are
	// used without it.
	CAFile string `json:"caFile,omitempty"`
	// AccessKey and SecretKey say where the keys are found; without both the store
	// is used as anybody.
	AccessKey *SecretSource `json:"accessKey,omitempty"`
	SecretKey *SecretSource `json:"secretKey,omitempty"`
}

// SecretSource says where a secret is found: in a variable of the environment or
// in a file.
type SecretSource struct {
	Env  string `json:"env,omitempty"`
	File string `json:"file,omitempty"`
}

// The modes of mirrors.
const (
	MirrorCopy   = "copy"
	MirrorMirror = "mirror"
	MirrorTwoWay = "two-way"
)

// What a copy may write over.
const (
	OverwriteAlways   = "always"   // whatever differs
	OverwriteUnedited = "unedited" // what its last run left there
)

// What can be done with a mirror.
const (
	MirrorSync   = "sync"   // make the locations alike
	MirrorVerify = "verify" // compare them with what the last run left, to a level
	MirrorDrift  = "drift"  // list what differs from that
	MirrorAudit  = "audit"  // read everything on both sides
)

// MirrorChecks are what a run may go by for the second location, MirrorLevels how thoroughly
// a mirror can be verified. The first of each is meant where none is given.
var (
	MirrorChecks = []string{"auto", "state", "listing", "audit"}
	MirrorLevels = []string{"L1", "L2", "L3", "L4"}
)

// Mirror keeps one location like another.
type Mirror struct {
	// Name is what requests, commands and reports call it.
	Name string `json:"name"`
	// From and To are locations: dir:/path, zfs:pool/dataset or
	// s3:store/bucket/prefix.
	From string `json:"from"`
	To   string `json:"to"`
	// Mode is how: copy (nothing is removed), mirror (what only To holds is removed,
	// guarded) or two-way (what changes on either side is carried to the other); copy if
	// left out.
	Mode string `json:"mode,omitempty" jsonschema:"enum=copy,enum=mirror,enum=two-way"`
	// Overwrite is what a copy may write over: always (whatever differs) or unedited (only
	// what its last run left there: what somebody changed at To since stays, and is
	// reported); always if left out. Other modes know none.
	Overwrite string `json:"overwrite,omitempty" jsonschema:"enum=always,enum=unedited"`
	// Filter are rules such as "- *.tmp" and "+ /keep/**", the first that matches
	// decides, and what none matches takes part.
	Filter []string `json:"filter,omitempty"`
	// Xattrs mirrors extended attributes as well.
	Xattrs bool `json:"xattrs,omitempty"`
	// Privileged has a directory hold what only a bucket says gives rights: devices, setuid and
	// setgid files, and the extended attributes security.* and trusted.*. Whoever may write to
	// the bucket has these rights here then; left out, such entries are reported and not made.
	Privileged bool `json:"privileged,omitempty"`
	// OneFileSystem leaves out what is mounted below a directory, and a dataset's children.
	OneFileSystem bool `json:"oneFileSystem,omitempty"`
	// BytesPerSecond bounds the content that is read; 0 is no limit.
	BytesPerSecond int64 `json:"bytesPerSecond,omitempty"`
	// Heavy says whether its jobs are heavy work, which a machine does one after the other:
	// true from their beginning, false never; left out, from their second minute on, but
	// never with bytesPerSecond.
	Heavy *bool `json:"heavy,omitempty"`
	// Deletes is how much a run may delete.
	Deletes MirrorDeletes `json:"deletes,omitempty"`
	// KeepDeleted is how long what a run deletes can be listed and brought back, such as
	// 168h: it is put aside in .firedrill-trash below the location, or stays as a version of
	// a bucket that keeps those. 0 deletes for good. A copy deletes nothing.
	KeepDeleted event.Duration `json:"keepDeleted,omitempty"`
	// Permissions are rules for the modes and owners of what lies in a directory that is
	// mirrored, or mirrored into. They are set after all is copied, and of the rules of a side
	// the last one that matches decides.
	Permissions []Permission `json:"permissions,omitempty"`
	// Snapshots is how the snapshots of the dataset From are brought over, as ZFS streams;
	// left out, the mirror copies the files that the dataset holds now.
	Snapshots *MirrorSnapshots `json:"snapshots,omitempty"`
	// Every is how often the mirror runs by itself; 0 is only when asked.
	Every event.Duration `json:"every,omitempty"`
	// Daily is the time of day, as 02:30, at which it runs by itself.
	Daily string `json:"daily,omitempty"`
	// Zone is the IANA name of the zone that Daily is in, such as Europe/Berlin; UTC if left
	// out.
	Zone string `json:"zone,omitempty"`
	// After names mirrors that come first: a run that the mirror makes by itself waits until
	// the last run of each of them left nothing undone, and was later than its own last one
	// of that kind.
	After []string `json:"after,omitempty"`
	// Check is what the runs that the mirror makes by itself go by for To: state (what the
	// last run left there), listing (its listing), audit (hashes only: what has none is
	// read) or auto (state while the last listing is younger than 24h, else listing); auto
	// if left out.
	Check string `json:"check,omitempty" jsonschema:"enum=auto,enum=state,enum=listing,enum=audit"`
	// Verify is when the mirror is verified by itself; only when asked if left out.
	Verify *MirrorVerification `json:"verify,omitempty"`
	// Stalled is how long a run may make no progress before an alert; 15 minutes if
	// left out.
	Stalled event.Duration `json:"stalled,omitempty"`
}

// MirrorVerification is when both sides of a mirror are compared with what its last run left,
// and how thoroughly.
type MirrorVerification struct {
	// Level is L1 (names, sizes and ETags), L2 (the checksums that a store keeps), L3 (each
	// content is read once in 30 days) or L4 (each is read now); L1 if left out.
	Level string `json:"level,omitempty" jsonschema:"enum=L1,enum=L2,enum=L3,enum=L4"`
	// Every is how often; Daily, of which one is given, the time of day, as 04:00.
	Every event.Duration `json:"every,omitempty"`
	Daily string         `json:"daily,omitempty"`
	// Zone is that of Daily, as the mirror's is.
	Zone string `json:"zone,omitempty"`
}

// MirrorSnapshots is how snapshots are brought over: from a dataset to another one, which
// is made by the first run, or into an archive in a bucket. Each run takes one first.
type MirrorSnapshots struct {
	// Recursive brings over all datasets below From, too, each for itself.
	Recursive bool `json:"recursive,omitempty"`
	// FromVia and ToVia are the commands that reach the machines of the datasets, such as
	// "ssh root@backup --"; where one is left out, the dataset is on the machine that runs
	// the mirror.
	FromVia string `json:"fromVia,omitempty"`
	ToVia   string `json:"toVia,omitempty"`
	// Keep is which of the snapshots that firedrill took stay on the datasets, such as
	// "hourly=24,daily=7"; all if left out.
	Keep string `json:"keep,omitempty"`
	// KeepPoints is which of an archive's points stay, written as Keep is; all if left out.
	KeepPoints string `json:"keepPoints,omitempty"`
	// WholeEvery is how often a point of an archive is whole and no increment, such as
	// 168h; only the first if left out. An increment needs all before it, so KeepPoints
	// needs this.
	WholeEvery event.Duration `json:"wholeEvery,omitempty"`
}

// MirrorDeletes is how much a run may delete, and when.
type MirrorDeletes struct {
	// Most is how many entries a run may delete; 10,000 if left out.
	Most int64 `json:"most,omitempty"`
	// MostPercent is what share of a side's entries a run may delete, in percent; 25 if
	// left out.
	MostPercent float64 `json:"mostPercent,omitempty"`
	// Scans is in how many runs in a row an entry must be missing before it is deleted; 2
	// if left out.
	Scans int `json:"scans,omitempty"`
}

// The sides of a mirror that a rule for permissions is for.
const (
	SideSource      = "source"      // From
	SideDestination = "destination" // To
)

// GroupInherit is a rule's group that is each entry's directory's.
const GroupInherit = "inherit"

// Permission is a rule for modes and owners.
type Permission struct {
	// Side is what the rule is for: source (the directory From, of which the destination gets
	// what the rules make of it) or destination; destination if left out.
	Side string `json:"side,omitempty" jsonschema:"enum=source,enum=destination"`
	// Match is a pattern as in filters, such as /bin/** or *.sh.
	Match string `json:"match"`
	// Files and Dirs are modes in octal, such as "0640" and "2750"; left out, they
	// stay.
	Files string `json:"files,omitempty"`
	Dirs  string `json:"dirs,omitempty"`
	// Owner and Group are names or numbers; left out, they stay. The group inherit is that of
	// the directory which an entry lies in, if that is setgid, and a directory is then setgid,
	// too: as what is made there gets them.
	Owner string `json:"owner,omitempty"`
	Group string `json:"group,omitempty"`
}

// DefaultStalled is how long a mirror's run may make no progress.
const DefaultStalled = 15 * time.Minute

// FindMirror gives the mirror of a name.
func (inv Inventory) FindMirror(name string) (Mirror, bool) {
	i := slices.IndexFunc(inv.Spec.Mirrors, func(m Mirror) bool { return m.Name == name })
	if i < 0 {
		return Mirror{}, false
	}
	return inv.Spec.Mirrors[i], true
}

func (c *checker) checkStores(ss []Store) {
	c.unique("spec.stores", "store", namesOf(ss, func(s Store) string { return s.Name }))
	for i, s := range ss {
		at := fmt.Sprintf("spec.stores[%d]", i)
		c.checkEndpoint(at+".endpoint", s)
		if (s.AccessKey == nil) != (s.SecretKey == nil) && !c.below(at+".accessKey") && !c.below(at+".secretKey") {
			c.add(at, s.Name, "give both accessKey and secretKey, or neither")
		}
		for field, ref := range map[string]*SecretSource{"accessKey": s.AccessKey, "secretKey": s.SecretKey} {
			if ref != nil && (ref.Env == "") == (ref.File == "") && !c.below(at+"."+field) {
				c.add(at+"."+field, "", "say where it is found: either {env: NAME} or {file: PATH}")
			}
		}
	}
}

func (c *checker) checkEndpoint(at string, s Store) {
	if holdsSecret(s.Endpoint) {
		c.add(at, "", "a URL here never holds a user or password: use accessKey and secretKey")
		return
	}
	u, err := url.Parse(s.Endpoint)
	switch {
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.User != nil:
		c.add(at, s.Endpoint, "this must be the server's URL, such as https://s3.example:9000")
	case strings.ContainsAny(s.Endpoint, "?#"):
		c.add(at, s.Endpoint, fmt.Sprintf("this must end after the server's name and port: write %s://%s, as nothing is asked of a server with ? or #", u.Scheme, u.Host))
	case u.Path != "" && u.Path != "/":
		c.add(at, s.Endpoint, "this must end after the server's name and port: a bucket and folders in it are part of a mirror's from and to, such as s3:"+s.Name+"/bucket/folder")
	}
}

func (c *checker) checkMirrors(ms []Mirror) {
	c.unique("spec.mirrors", "mirror", namesOf(ms, func(m Mirror) string { return m.Name }))
	for i, m := range ms {
		c.checkMirror(fmt.Sprintf("spec.mirrors[%d]", i), m)
	}
	c.checkOrder(ms)
}

func (c *checker) checkMirror(at string, m Mirror) {
	for _, f := range []struct{ name, value string }{{"from", m.From}, {"to", m.To}} {
		switch {
		case strings.HasPrefix(f.value, "s3+http"):
			c.add(at+"."+f.name, f.value, "an inventory names its servers: add this one to spec.stores, and write s3:store/bucket/prefix")
		case !locationPattern().MatchString(f.value):
			c.add(at+"."+f.name, f.value, "a location has a kind, a colon and a path, such as dir:/srv/data or s3:store/bucket")
		}
		if holdsSecret(f.value) {
			c.add(at+"."+f.name, "", "a mirror never holds a secret: remove it from the location")
		}
	}
	if !slices.Contains([]string{"", MirrorCopy, MirrorMirror, MirrorTwoWay}, m.Mode) {
		c.add(at+".mode", m.Mode, "this must be copy, mirror or two-way")
	}
	if !slices.Contains([]string{"", OverwriteAlways, OverwriteUnedited}, m.Overwrite) {
		c.add(at+".overwrite", m.Overwrite, "this must be always or unedited")
	}
	if m.BytesPerSecond < 0 {
		c.add(at+".bytesPerSecond", fmt.Sprint(m.BytesPerSecond), "this is bytes per second, or 0 for no limit")
	}
	if m.Deletes.Most < 0 {
		c.add(at+".deletes.most", fmt.Sprint(m.Deletes.Most), "this is how many entries a run may delete, or 0 for 10,000")
	}
	c.percent(at+".deletes.mostPercent", m.Deletes.MostPercent)
	if m.Deletes.Scans < 0 || m.Deletes.Scans > 255 {
		c.add(at+".deletes.scans", fmt.Sprint(m.Deletes.Scans), "this is 1 to 255, or 0 for 2")
	}
	c.between(at+".keepDeleted", m.KeepDeleted, time.Second, 10*365*24*time.Hour)
	if m.Stalled < 0 {
		c.add(at+".stalled", m.Stalled.String(), "this is how long a run may make no progress, such as 15m")
	}
	c.checkCadence(at, m.Cadence(MirrorSync))
	switch {
	case m.Check == "":
	case !slices.Contains(MirrorChecks, m.Check):
		c.add(at+".check", m.Check, "this must be auto, state, listing or audit")
	case (m.Cadence(MirrorSync) == Cadence{}):
		c.add(at+".check", m.Check, "this is for the runs that the mirror makes by itself, and it makes none: add every or daily, or say it when you ask for a run")
	}
	c.checkVerification(at+".verify", m)
	for i, p := range m.Permissions {
		c.checkPermission(fmt.Sprintf("%s.permissions[%d]", at, i), p)
	}
}

func (c *checker) checkVerification(at string, m Mirror) {
	if m.Verify == nil {
		return
	}
	if m.Snapshots != nil {
		c.add(at, "", "what is brought over as snapshots is verified while it arrives, and an archive by firedrill zfs check: leave this out")
	}
	if m.Verify.Level != "" && !slices.Contains(MirrorLevels, m.Verify.Level) {
		c.add(at+".level", m.Verify.Level, "this must be L1, L2, L3 or L4")
	}
	if (m.Cadence(MirrorVerify) == Cadence{}) && !c.below(at) {
		c.add(at, "", `say when: every, such as 1h, or daily, such as "04:00"`)
	}
	c.checkCadence(at, m.Cadence(MirrorVerify))
}

func (c *checker) checkPermission(at string, p Permission) {
	if !slices.Contains([]string{"", SideSource, SideDestination}, p.Side) {
		c.add(at+".side", p.Side, "this must be source or destination")
	}
	if p.Match == "" {
		c.add(at+".match", "", "say which names the rule is for, such as **")
	}
	c.checkMode(at+".files", p.Files, ofFile)
	c.checkMode(at+".dirs", p.Dirs, ofDir)
	c.checkOwner(at+".owner", p.Owner, "user")
	c.checkOwner(at+".group", p.Group, "group")
	if p.Owner == GroupInherit {
		c.add(at+".owner", p.Owner, "only groups are inherited (group: inherit): write the user's name or number, or leave it out")
	}
	if p.Files+p.Dirs+p.Owner+p.Group == "" && !c.below(at) {
		c.add(at, p.Match, "the rule changes nothing: give files, dirs, owner or group")
	}
}

// checkMode notes what is no mode, or one that sense gives another instead of.
func (c *checker) checkMode(at, mode string, sense func(uint64) (uint64, string)) {
	switch n, err := strconv.ParseUint(mode, 8, 12); {
	case mode == "":
	case !isMode(mode) || err != nil:
		c.add(at, mode, "this is a mode in octal, such as \"0640\"")
	default:
		if better, why := sense(n); why != "" {
			c.addf(at, mode, "%s: write \"%04o\"", why, better)
		}
	}
}

// ofFile and ofDir say why a file, or a directory, is not to have a mode, and which one was
// probably meant.
func ofFile(mode uint64) (better uint64, why string) {
	switch {
	case mode&0o4100 == 0o4000:
		return mode &^ 0o4000, "setuid means nothing on a file that its owner may not run"
	case mode&0o2010 == 0o2000:
		return mode &^ 0o2000, "setgid means nothing on a file that its group may not run; it is for dirs"
	case mode&0o1000 != 0:
		return mode &^ 0o1000, "the sticky bit means nothing on a file; it is for dirs"
	}
	return mode, ""
}

func ofDir(mode uint64) (better uint64, why string) {
	if mode&0o111 == 0 {
		return mode | mode&0o444>>2 | 0o100, "nobody could enter a directory without x"
	}
	return mode, ""
}

// checkOwner notes numbers that no user and no group has.
func (c *checker) checkOwner(at, who, what string) {
	if strings.Trim(strings.TrimPrefix(who, "-"), "0123456789") != "" || who == "" || who == "-" {
		return
	}
	if n, err := strconv.ParseUint(who, 10, 32); err != nil || n == math.MaxUint32 {
		c.addf(at, who, "this is no %s's number: write 0 to %d, or a name", what, uint32(math.MaxUint32-1))
	}
}

func isMode(s string) bool {
	if len(s) < 3 || len(s) > 4 {
		return false
	}
	return strings.Trim(s, "01234567") == ""
}
