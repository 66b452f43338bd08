package postgres

import (
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/firedrill/firedrill/pkg/control"
	"github.com/firedrill/firedrill/pkg/target/undo"
)

// savedDir keeps what a rebuild of a node must not lose: its own settings, and,
// as the file busy, the word that the data directory is not whole.
func (s *servers) savedDir(n *node) string {
	return path.Join(s.cfg.Failback.EvidenceDir, "rebuild-"+n.Name)
}

// makeEvidenceDir makes the directory, owned by the server's user.
func (s *servers) makeEvidenceDir(ctx context.Context, n *node) error {
	_, err := n.host.Run(ctx, control.Command{
		Script: `[ -d "$1" ] || { mkdir -p -m 0700 -- "$1" && { [ "$(id -un)" = "$2" ] || chown "$2" -- "$1"; }; }`,
		Args:   []string{s.cfg.Failback.EvidenceDir, n.OSUser},
	})
	if err != nil {
		return fmt.Errorf("node %s: evidence directory: %w", n.Name, err)
	}
	return nil
}

// rebuild makes v's node a standby of lead whatever its data directory holds. The
// write-ahead log is kept first: rebuilding destroys the evidence of what was lost.
func (s *servers) rebuild(ctx context.Context, v view, lead *node, method string, j *undo.Journal) error {
	n := v.node
	if err := s.halt(ctx, v, j); err != nil {
		return err
	}
	if !v.Rebuilding {
		dir, err := s.keepLog(ctx, v)
		if err != nil {
			return err
		}
		j.Add("kept the write-ahead log of node %s in %s", n.Name, dir)
		if err := s.saveSettings(ctx, n); err != nil {
			return err
		}
	}
	if method == MethodRewind {
		if err := s.rewind(ctx, n, lead); err != nil {
			if ctx.Err() != nil {
				return err
			}
			j.Add("pg_rewind of node %s failed, so a base backup is taken: %v", n.Name, err)
			method = MethodBaseBackup
		} else {
			j.Add("rewound node %s to %s", n.Name, lead.Name)
		}
	}
	if method == MethodBaseBackup {
		if err := s.baseBackup(ctx, n, lead); err != nil {
			return err
		}
		j.Add("copied node %s from %s by a base backup", n.Name, lead.Name)
	}
	if err := s.becomeStandby(ctx, n, lead, j); err != nil {
		return err
	}
	if err := s.startNode(ctx, n); err != nil {
		return err
	}
	l, err := s.lookAt(ctx, lead, lookLimit)
	if err != nil {
		return err
	}
	if err := s.awaitStreaming(ctx, n, l.Timeline, streamLimit); err != nil {
		return err
	}
	_, err = s.run(ctx, n, `rm -rf -- "$1.firedrill-old"`, n.DataDir)
	return err
}

// halt stops a node that is to be rebuilt. A frozen one is never let go on: it
// would acknowledge writes that are about to be thrown away.
func (s *servers) halt(ctx context.Context, v view, j *undo.Journal) error {
	switch {
	case !v.Running():
		return nil
	case v.Frozen || !v.Answers:
		j.Add("ended node %s without letting it go on", v.node.Name)
		return s.killNode(ctx, v.node)
	}
	j.Add("stopped node %s", v.node.Name)
	if err := s.stopNode(ctx, v.node, "fast"); err != nil {
		return s.stopNode(ctx, v.node, "immediate")
	}
	return nil
}

// keepLogScript copies pg_wal with checksums. The directory's name comes from
// what is kept, so that a second try does not keep it twice.
const keepLogScript = `to=$2
[ -e "$to/SHA256SUMS" ] && exit 0
rm -rf -- "$to.part" && mkdir -p -- "$to.part" && cp -a -- "$1/pg_wal" "$to.part/" && "$3/pg_controldata" -D "$1" >"$to.part/pg_controldata.txt" &&
cd "$to.part" && find . -type f ! -name SHA256SUMS -exec sha256sum {} + | sort -k 2 >SHA256SUMS && cd / && rm -rf -- "$to" && mv -- "$to.part" "$to"`

func (s *servers) keepLog(ctx context.Context, v view) (string, error) {
	n := v.node
	now, err := s.lookAt(ctx, n, lookLimit)
	if err != nil {
		return "", err
	}
	to := path.Join(s.cfg.Failback.EvidenceDir, fmt.Sprintf("wal-%s-timeline%d-%s", n.Name, now.Timeline, strings.ReplaceAll(now.Checkpoint.String(), "/", "-")))
	_, err = s.change(ctx, n, login{}, "copy the write-ahead log", keepLogScript, n.DataDir, to, n.BinDir)
	if err != nil {
		return "", fmt.Errorf("keep the write-ahead log as evidence: %w", err)
	}
	return to, nil
}

// saveScript keeps a node's own settings, its way of starting and its
// tablespaces: a rebuild overwrites them with the other node's.
const saveScript = `s=$1 d=$2
if [ ! -e "$s/settings.tar" ]; then
  rm -rf -- "$s" && mkdir -p -m 0700 -- "$s" && cd "$d" || exit 1
  for l in pg_tblspc/*; do [ -L "$l" ] && printf '%s\t%s\n' "${l#pg_tblspc/}" "$(readlink "$l")"; done >"$s/tablespaces"
  find . -maxdepth 1 -type f \( -name '*.conf' -o -name postmaster.opts \) >"$s/files"
  [ -d conf.d ] && echo ./conf.d >>"$s/files"
  tar -cf "$s/settings.part" -T "$s/files" && mv -- "$s/settings.part" "$s/settings.tar" || exit 1
fi
: >"$s/busy" && sync "$s/busy"`

func (s *servers) saveSettings(ctx context.Context, n *node) error {
	_, err := s.change(ctx, n, login{}, "copy the settings", saveScript, s.savedDir(n), n.DataDir)
	if err != nil {
		return fmt.Errorf("save the settings: %w", err)
	}
	return nil
}

// libpq hands a connection's password to a tool through a file that only the
// server's user reads, never through its arguments.
func (s *servers) libpq(to Address, l login, database string) string {
	return fmt.Sprintf("host=%s port=%d user=%s dbname=%s sslmode=%s connect_timeout=10 application_name=firedrill",
		dsnQuote(to.Host), to.Port, dsnQuote(l.user), dsnQuote(database), s.cfg.SSLMode)
}

// lockScript makes the script that follows the only one of its kind on a node. A
// firedrill that was killed leaves its last script running, and a fresh one must
// not work on the same directory beside it. Servers that the script starts must
// not keep the lock: they get 9>&-.
const lockScript = `exec 9>"$FIREDRILL_LOCKS/$FIREDRILL_NODE.lock" && flock -w 900 9 || exit 1
`

// change runs a script that changes a node's data directory or server, under the
// node's lock, unless a newer conductor has acted, as the directory's owner, with a login's password in the environment.
func (s *servers) change(ctx context.Context, n *node, l login, what, script string, args ...string) (string, error) {
	if err := s.makeEvidenceDir(ctx, n); err != nil {
		return "", err
	}
	env := map[string]string{"FIREDRILL_LOCKS": s.cfg.Failback.EvidenceDir, "FIREDRILL_NODE": n.Name}
	if l.password != "" {
		env["PGPASSWORD"] = l.password
	}
	out, err := n.host.Output(ctx, control.Command{What: what, Script: lockScript + conductor(ctx).Guard(script), Args: args, User: n.OSUser, Env: env})
	if err != nil {
		return out, s.scrub(fmt.Errorf("node %s: %w", n.Name, err))
	}
	return out, nil
}

// tool runs a PostgreSQL program on a node's machine with a password in its environment.
func (s *servers) tool(ctx context.Context, n *node, l login, script string, args ...string) (string, error) {
	env := map[string]string{}
	if l.password != "" {
		env["PGPASSWORD"] = l.password
	}
	out, err := n.host.Output(ctx, control.Command{Script: script, Args: args, User: n.OSUser, Env: env})
	if err != nil {
		return out, s.scrub(fmt.Errorf("node %s: %w", n.Name, err))
	}
	return out, nil
}

func (s *servers) rewind(ctx context.Context, n, lead *node) error {
	// pg_rewind takes the timeline from the source's control file, which names the
	// new one only after a checkpoint; without it, "no rewind required".
	if _, err := s.exec(ctx, lead, "CHECKPOINT"); err != nil {
		return err
	}
	// After a kill it has to recover the data directory first, by itself, with the
	// node's own settings; the way of starting is given back afterwards.
	_, err := s.change(ctx, n, s.admin, "pg_rewind", `s=$4
cfg=$(sed -n 's/.*"config_file=\([^"]*\)".*/\1/p' "$2/postmaster.opts" 2>/dev/null)
rm -f -- "$2/postmaster.pid"
"$1/pg_rewind" --target-pgdata="$2" --source-server="$3" ${cfg:+--config-file="$cfg"} >&2 && tar -xf "$s/settings.tar" -C "$2" && : >"$2/standby.signal" && rm -f -- "$s/busy"`,
		n.BinDir, n.DataDir, s.libpq(lead.Address(), s.admin, s.cfg.Database), s.savedDir(n))
	return err
}

// baseBackupScript copies lead beside the data directory, then changes places.
// When it ends, the directory is whole and a standby's: a fresh process may find it
// so. The old directory is removed when the new one streams. Tablespaces keep their
// places on this machine: each is emptied first.
const baseBackupScript = `bin=$1 d=$2 src=$3 s=$4; shift 4
new="$d.firedrill-new"
rm -rf -- "$new" || exit 1
for m; do to=${m#*=}; [ -d "$to" ] && find "$to" -mindepth 1 -delete; set -- "$@" -T "$m"; shift; done
"$bin/pg_basebackup" -D "$new" -d "$src" -X stream -c fast "$@" >&2 && tar -xf "$s/settings.tar" -C "$new" && : >"$new/standby.signal" || exit 1
if [ -e "$d" ]; then rm -rf -- "$d.firedrill-old" && mv -- "$d" "$d.firedrill-old" || exit 1; fi
mv -- "$new" "$d" && rm -f -- "$s/busy"`

func (s *servers) baseBackup(ctx context.Context, n, lead *node) error {
	maps, err := s.tablespaceMaps(ctx, n, lead)
	if err != nil {
		return err
	}
	args := append([]string{n.BinDir, n.DataDir, s.libpq(lead.Address(), s.replication, s.cfg.Database), s.savedDir(n)}, maps...)
	_, err = s.change(ctx, n, s.replication, "pg_basebackup", baseBackupScript, args...)
	if err != nil {
		return fmt.Errorf("base backup from %s: %w", lead.Name, err)
	}
	return nil
}

// tablespaceMaps says where lead's tablespaces lie on n's machine.
func (s *servers) tablespaceMaps(ctx context.Context, n, lead *node) ([]string, error) {
	text, err := s.run(ctx, n, `cat -- "$1/tablespaces"`, s.savedDir(n))
	if err != nil {
		return nil, err
	}
	here := map[string]string{}
	for line := range strings.Lines(text) {
		oid, dir, _ := strings.Cut(strings.TrimSpace(line), "\t")
		here[oid] = dir
	}
	rows, err := s.exec(ctx, lead, "SELECT oid, pg_tablespace_location(oid) FROM pg_tablespace WHERE pg_tablespace_location(oid) <> ''")
	if err != nil {
		return nil, err
	}
	var out []string
	for _, r := range rows {
		dir, ok := here[r[0]]
		switch {
		case !ok && n.host.Local() && lead.host.Local():
			return nil, fmt.Errorf("node %s: tablespace %s has no place on it: it was made during the drill; copy the node by hand", n.Name, r[1])
		case !ok:
			dir = r[1]
		}
		if strings.ContainsAny(dir+r[1], "=") {
			return nil, fmt.Errorf("node %s: tablespace %s: a place with = cannot be mapped; copy the node by hand", n.Name, r[1])
		}
		out = append(out, r[1]+"="+dir)
	}
	return out, nil
}

// standbyScript makes a stopped data directory start as a standby. The lines it
// writes to postgresql.auto.conf go last, so they count; restoreSettings puts the
// file back.
const standbyScript = `d=$1 s=$2
: >"$d/standby.signal" || exit 1
[ -n "$3" ] || exit 0
umask 077
printf '%s\n' "$4" >"$s/pgpass" && { sed '/# firedrill$/d' "$d/postgresql.auto.conf" 2>/dev/null; printf '%s # firedrill\n' "primary_conninfo = '$3'" "primary_slot_name = ''"; } >"$s/auto.part" &&
cat "$s/auto.part" >"$d/postgresql.auto.conf"`

// becomeStandby makes a stopped node follow lead when it starts. To follow home,
// a standby has its own settings; anyone else gets some for the time being.
func (s *servers) becomeStandby(ctx context.Context, n, lead *node, j *undo.Journal) error {
	if lead == s.home() && n.Role == RoleStandby {
		info, err := s.setting(ctx, n, "primary_conninfo")
		if err != nil {
			return err
		}
		if info != "" {
			if err := s.ensureSlot(ctx, n, lead, j); err != nil {
				return err
			}
			_, err = s.run(ctx, n, standbyScript, n.DataDir, s.savedDir(n), "", "")
			return err
		}
		j.Add("node %s has no primary_conninfo of its own and gets one", n.Name)
	}
	if err := s.saveIfNone(ctx, n); err != nil {
		return err
	}
	at := lead.replication()
	info := fmt.Sprintf("host=%s port=%d user=%s passfile=%s application_name=%s sslmode=%s connect_timeout=5",
		dsnQuote(at.Host), at.Port, dsnQuote(s.replication.user), dsnQuote(path.Join(s.savedDir(n), "pgpass")), dsnQuote(n.Name), s.cfg.SSLMode)
	esc := strings.NewReplacer(`\`, `\\`, `:`, `\:`)
	pass := fmt.Sprintf("*:*:*:%s:%s", esc.Replace(s.replication.user), esc.Replace(s.replication.password))
	// The password travels in the environment of the script: it is no argument.
	_, err := n.host.Run(ctx, control.Command{
		Script: `set -- "$1" "$2" "$3" "$FIREDRILL_PASS"
` + standbyScript,
		Args: []string{n.DataDir, s.savedDir(n), strings.ReplaceAll(info, "'", "''")},
		User: n.OSUser, Env: map[string]string{"FIREDRILL_PASS": pass},
	})
	if err != nil {
		return s.scrub(fmt.Errorf("node %s: make it a standby: %w", n.Name, err))
	}
	return nil
}

// saveIfNone keeps a node's settings aside before they are changed without a rebuild.
func (s *servers) saveIfNone(ctx context.Context, n *node) error {
	v, err := s.lookAt(ctx, n, lookLimit)
	if err != nil || v.Saved {
		return err
	}
	if err := s.saveSettings(ctx, n); err != nil {
		return err
	}
	_, err = s.run(ctx, n, `rm -f -- "$1/busy"`, s.savedDir(n))
	return err
}

// setting reads a setting of a stopped node from its files.
func (s *servers) setting(ctx context.Context, n *node, name string) (string, error) {
	return s.run(ctx, n, `cfg=$(sed -n 's/.*"config_file=\([^"]*\)".*/\1/p' "$2/postmaster.opts" 2>/dev/null)
"$1/postgres" -D "$2" ${cfg:+-c config_file="$cfg"} -C "$3"`, n.BinDir, n.DataDir, name)
}

// ensureSlot makes the replication slot that a standby asks its primary for: a
// rewind of the primary drops them.
func (s *servers) ensureSlot(ctx context.Context, n, lead *node, j *undo.Journal) error {
	slot, err := s.setting(ctx, n, "primary_slot_name")
	if err != nil || slot == "" {
		return err
	}
	rows, err := s.exec(ctx, lead, "SELECT pg_create_physical_replication_slot($1) WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)", slot)
	if err == nil && len(rows) > 0 {
		j.Add("made replication slot %s on node %s again", slot, lead.Name)
	}
	return err
}

// restoreScript takes firedrill's own lines out again and clears away.
const restoreScript = `s=$1 d=$2
[ -d "$s" ] || exit 0
if [ -e "$d/postgresql.auto.conf" ] && grep -q '# firedrill$' "$d/postgresql.auto.conf"; then
  sed '/# firedrill$/d' "$d/postgresql.auto.conf" >"$s/auto.part" && cat "$s/auto.part" >"$d/postgresql.auto.conf" || exit 1
  echo restored
fi
rm -rf -- "$s" "$d.firedrill-old"`

// restoreSettings gives a node its own settings back after a rebuild. A standby
// that had none keeps the ones that it streams by.
func (s *servers) restoreSettings(ctx context.Context, n *node, j *undo.Journal) error {
	if n != s.home() {
		own, err := s.run(ctx, n, `grep -c '# firedrill$' "$1/postgresql.auto.conf" 2>/dev/null || :`, n.DataDir)
		if err != nil || own != "0" && own != "" {
			return err
		}
	}
	out, err := s.run(ctx, n, restoreScript, s.savedDir(n), n.DataDir)
	if err != nil {
		return fmt.Errorf("restore the settings: %w", err)
	}
	if out != "restored" {
		return nil
	}
	j.Add("gave node %s its own settings back", n.Name)
	_, err = s.exec(ctx, n, "SELECT pg_reload_conf()")
	return err
}
