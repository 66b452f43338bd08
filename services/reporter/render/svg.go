package render

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"slices"
	"strings"

	"github.com/firedrill/firedrill/services/reporter/fold"
)

// The drawing's measures, in user units.
const (
	svgWidth   = 1160.0
	gutter     = 168.0
	rightEdge  = svgWidth - 16
	markHeight = 20.0
	laneHeight = 38.0
	laneGap    = 12.0
	axisHeight = 26.0
	charWidth  = 6.4
)

// drawing is one SVG being written.
type drawing struct {
	strings.Builder
	from, to int64
	y        float64
	id       string
}

// timeline draws a phase, or nothing where there is nothing to draw.
func timeline(p fold.Phase, index int) template.HTML {
	if p.Timeline == nil {
		return ""
	}
	return draw(p, p.Timeline.From, p.Timeline.To, p.Timeline.Strip, fmt.Sprintf("p%d", index), "The whole phase")
}

// closeUp draws the closer look at the outage.
func closeUp(p fold.Phase, index int) template.HTML {
	if p.Timeline == nil || p.Timeline.Close == nil {
		return ""
	}
	c := p.Timeline.Close
	return draw(p, c.From, c.To, c.Strip, fmt.Sprintf("c%d", index), "The recovery, closer")
}

func draw(p fold.Phase, from, to int64, strips []fold.Strip, id, title string) template.HTML {
	d := &drawing{from: from, to: to, id: id, y: 8}
	d.stretches(p)
	rows := d.pack(p.Timeline.Marks)
	marksTop := d.y
	d.y += float64(len(rows))*(markHeight+4) + 8
	lanesTop := d.y
	lanesHeight := float64(len(strips))*(laneHeight+laneGap) - laneGap
	d.grid(marksTop-4, lanesTop+max(lanesHeight, 0)+6)
	d.moments(p, marksTop-4, lanesTop+max(lanesHeight, 0)+6)
	for i, row := range rows {
		for _, m := range row {
			d.mark(m, marksTop+float64(i)*(markHeight+4))
		}
	}
	for _, s := range strips {
		d.strip(p, s)
	}
	d.y += axisHeight
	if rto := p.Objective.RTO; rto > 0 && len(p.Faults) > 0 && rto >= from && rto <= to {
		d.y += 14 // the objective's label
	}
	var out strings.Builder
	fmt.Fprintf(&out, `<svg class="timeline" viewBox="0 0 %.0f %.0f" role="img" aria-label="%s">`, svgWidth, d.y, html.EscapeString(title+" of "+p.Title))
	fmt.Fprintf(&out, `<title>%s</title>`, html.EscapeString(title+" of "+p.Title+", seconds from the fault"))
	fmt.Fprintf(&out, `<defs><pattern id="h%s" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect class="hatch" width="2" height="5"/></pattern></defs>`, id)
	out.WriteString(d.String())
	out.WriteString(`</svg>`)
	return template.HTML(out.String()) // every text in it went through html.EscapeString
}

// x places a moment; what lies outside is put at the edge.
func (d *drawing) x(ns int64) float64 {
	share := (float64(ns) - float64(d.from)) / (float64(d.to) - float64(d.from))
	return gutter + min(1, max(0, share))*(rightEdge-gutter)
}

func (d *drawing) text(x, y float64, class, anchor, s string) {
	fmt.Fprintf(d, `<text x="%.1f" y="%.1f" class="%s" text-anchor="%s">%s</text>`, x, y, class, anchor, html.EscapeString(s))
}

func (d *drawing) rect(x, y, w, h float64, class, title string) {
	fmt.Fprintf(d, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" class="%s">`, x, y, w, h, class)
	if title != "" {
		fmt.Fprintf(d, `<title>%s</title>`, html.EscapeString(title))
	}
	d.WriteString(`</rect>`)
}

// stretches names the measured window and the restore above the lanes.
func (d *drawing) stretches(p fold.Phase) {
	if p.Window == nil {
		return
	}
	zero := p.Timeline.ZeroMono
	from, until := p.Window.From-zero, p.Window.Until-zero
	d.bracket(from, until, "measured window", "window")
	if p.Failback != nil && until < d.to {
		d.bracket(until, d.to, "restore", "restoring")
	}
	d.y += 22
}

func (d *drawing) bracket(from, to int64, label, class string) {
	if to <= d.from || from >= d.to {
		return
	}
	x, w := d.x(from), d.x(to)-d.x(from)
	d.rect(x, d.y, w, 14, "bracket "+class, label)
	if w > float64(len(label))*charWidth {
		d.text(x+w/2, d.y+11, "bracket-text", "middle", label)
	}
}

// pack puts the marks in rows, so that no label covers another.
func (d *drawing) pack(marks []fold.Mark) [][]fold.Mark {
	var rows [][]fold.Mark
	var ends []float64
	for _, m := range marks {
		if m.To < d.from || m.From > d.to || m.Kind == "stable" {
			continue
		}
		lo, hi := d.reach(m)
		i := slices.IndexFunc(ends, func(end float64) bool { return end+6 <= lo })
		if i < 0 {
			rows, ends = append(rows, nil), append(ends, 0)
			i = len(rows) - 1
		}
		rows[i], ends[i] = append(rows[i], m), hi
	}
	return rows
}

// reach is the stretch that a mark and its label take up.
func (d *drawing) reach(m fold.Mark) (lo, hi float64) {
	lo, hi = d.x(m.From), max(d.x(m.To), d.x(m.From)+5)
	label := float64(len([]rune(m.Label)))*charWidth + 8
	if hi+label > rightEdge {
		return lo - label, hi
	}
	return lo, hi + label
}

func (d *drawing) mark(m fold.Mark, y float64) {
	x := d.x(m.From)
	w := max(d.x(m.To)-x, 5)
	class := "mark " + m.Kind
	if m.Failed {
		class += " failed"
	}
	d.rect(x, y+3, w, markHeight-6, class, fmt.Sprintf("%s: %s, %s, took %s", m.Kind, m.Label, offset(m.From), fold.ShowDuration(m.To-m.From)))
	label := m.Label
	if m.Failed {
		label += " ✗"
	}
	if lo, _ := d.reach(m); lo < x {
		d.text(x-5, y+markHeight-6, "mark-text", "end", label)
		return
	}
	d.text(x+w+5, y+markHeight-6, "mark-text", "start", label)
}

// grid draws the axis with round distances from the fault.
func (d *drawing) grid(top, bottom float64) {
	step := tick(d.to - d.from)
	for at := (d.from/step - 1) * step; at <= d.to; at += step {
		if at < d.from {
			continue
		}
		x := d.x(at)
		fmt.Fprintf(d, `<path class="grid" d="M%.1f %.1fV%.1f"/>`, x, top, bottom)
		d.text(x, bottom+15, "axis", "middle", tickText(at))
	}
}

func tickText(ns int64) string {
	if ns == 0 {
		return "fault"
	}
	return offset(ns)
}

// tick is a round distance that gives about ten of them.
func tick(span int64) int64 {
	want := max(span/10, 1)
	unit := int64(math.Pow10(int(math.Log10(float64(want)))))
	for _, f := range []int64{1, 2, 5, 10} {
		if unit*f >= want {
			return max(unit*f, 1)
		}
	}
	return max(unit*10, 1)
}

// moments draws the lines across all lanes: the fault, the objective, stable.
func (d *drawing) moments(p fold.Phase, top, bottom float64) {
	line := func(at int64, class, label string) {
		if at < d.from || at > d.to {
			return
		}
		x := d.x(at)
		fmt.Fprintf(d, `<path class="line %s" d="M%.1f %.1fV%.1f"><title>%s</title></path>`, class, x, top, bottom, html.EscapeString(label))
	}
	for _, f := range p.Faults {
		if f.Status == "injected" {
			line(f.From, "fault-line", "fault "+f.Name)
		}
	}
	if rto := p.Objective.RTO; rto > 0 && len(p.Faults) > 0 {
		line(rto, "objective-line", "objective: "+fold.ShowDuration(rto))
		if rto >= d.from && rto <= d.to {
			d.text(d.x(rto), bottom+29, "objective-text", "middle", "RTO "+fold.ShowDuration(rto))
		}
	}
	for _, m := range p.Timeline.Marks {
		if m.Kind == "stable" {
			line(m.From, "stable-line", "stable from "+offset(m.From))
		}
	}
}

// strip draws one lane: its outages behind, its attempts in front.
func (d *drawing) strip(p fold.Phase, s fold.Strip) {
	top := d.y
	d.text(gutter-10, top+15, "lane", "end", s.Probe)
	d.text(gutter-10, top+30, "lane-sub", "end", s.Lane+rate(s, d.to-d.from))
	d.rect(gutter, top, rightEdge-gutter, laneHeight, "lane-back", "")
	for _, o := range p.Outages {
		if o.Probe == s.Probe && o.Lane == s.Lane {
			d.outage(o, top)
		}
	}
	if share := d.bars(s.OK, top); share != "" {
		fmt.Fprintf(d, `<path class="ok" d="%s"/>`, share)
	}
	if share := d.bars(s.Bad, top); share != "" {
		fmt.Fprintf(d, `<path class="bad" d="%s"/>`, share)
	}
	d.y += laneHeight + laneGap
}

// rate is the lane's highest density of attempts.
func rate(s fold.Strip, span int64) string {
	if len(s.OK) == 0 || span <= 0 {
		return ""
	}
	per := float64(s.Peak) / (float64(span) / float64(len(s.OK)) / 1e9)
	if s.Peak < 3 {
		return ""
	}
	return fmt.Sprintf(", up to %.0f/s", per)
}

// outage shades the surely lost time, and hatches what is uncertain about it.
func (d *drawing) outage(o fold.Outage, top float64) {
	if o.To.Hi < d.from && !o.To.Open || o.From.Lo > d.to {
		return
	}
	title := fmt.Sprintf("outage of %s, from %s to %s", fold.Show(o.Length), offsets(o.From), offsets(o.To))
	end, endHi := o.To.Lo, o.To.Hi
	if o.To.Open {
		end, endHi = max(o.To.Lo, o.From.Hi), max(o.To.Lo, o.From.Hi)
	}
	if x, w := d.x(o.From.Hi), d.x(end)-d.x(o.From.Hi); w > 0 {
		d.rect(x, top-3, w, laneHeight+6, "outage", title)
	}
	for _, band := range [][2]int64{{o.From.Lo, o.From.Hi}, {end, endHi}} {
		x, w := d.x(band[0]), d.x(band[1])-d.x(band[0])
		if w <= 0 {
			continue
		}
		fmt.Fprintf(d, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="url(#h%s)"><title>%s</title></rect>`, x, top-3, max(w, 1), laneHeight+6, d.id, html.EscapeString("uncertain: "+title))
	}
}

// bars turns a strip's digits into one path, runs of equal height together.
func (d *drawing) bars(digits string, top float64) string {
	var b strings.Builder
	n := len(digits)
	width := (rightEdge - gutter) / float64(max(n, 1))
	for i := 0; i < n; {
		j := i
		for j < n && digits[j] == digits[i] {
			j++
		}
		if level := digits[i]; level > '0' && level <= '9' {
			h := laneHeight * (0.25 + 0.75*float64(level-'0')/9)
			fmt.Fprintf(&b, "M%.1f %.1fh%.1fv%.1fh%.1fz", gutter+float64(i)*width, top+laneHeight-h, float64(j-i)*width, h, -float64(j-i)*width)
		}
		i = j
	}
	return b.String()
}

// pieceOf is how long a split is drawn: its middle, or what was seen of it.
func pieceOf(f fold.Figure) float64 {
	switch {
	case !f.Known:
		return 0
	case f.Open:
		return math.Max(0, float64(f.Lo))
	}
	return math.Max(0, float64(f.Mid()))
}

// splitBar draws the four splits of a recovery as one bar, by their midpoints.
func splitBar(s fold.Splits) template.HTML {
	pieces := []struct {
		class, name string
		f           fold.Figure
	}{{"detect", "detect", s.Detect}, {"failover", "fail over", s.Failover}, {"service", "restore service", s.Restore}, {"verify", "stay stable, verify data", s.Verify}}
	var total float64
	for _, p := range pieces {
		total += pieceOf(p.f)
	}
	if total == 0 {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="splits" viewBox="0 0 %.0f 58" role="img" aria-label="where the time went">`, svgWidth)
	x := 0.0
	for _, p := range pieces {
		if !p.f.Known {
			continue
		}
		class := p.class
		if p.f.Open {
			class += " open"
		}
		w := pieceOf(p.f) / total * svgWidth
		label := p.name + " " + fold.Show(p.f.Interval)
		fmt.Fprintf(&b, `<rect x="%.1f" y="0" width="%.1f" height="26" class="split %s"><title>%s</title></rect>`, x, math.Max(w-1.5, 0.5), class, html.EscapeString(label))
		x += w
	}
	x = 0
	for _, p := range pieces {
		label := p.name + " " + fold.ShowFigure(p.f)
		fmt.Fprintf(&b, `<rect x="%.1f" y="40" width="11" height="11" class="split %s"/><text x="%.1f" y="50" class="axis">%s</text>`, x, p.class, x+16, html.EscapeString(label))
		x += 40 + float64(len([]rune(label)))*charWidth
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String()) // every text in it went through html.EscapeString
}
