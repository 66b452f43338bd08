package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/firedrill/firedrill/pkg/meant"
)

// explainArguments has every command say how it is used when it is called with
// too few or too many arguments, or with a command that it does not have.
func explainArguments(c *cobra.Command) {
	for _, sub := range c.Commands() {
		explainArguments(sub)
	}
	if c.HasParent() && c.HasSubCommands() && !c.Runnable() {
		c.RunE = onlyCommands
	}
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return fmt.Errorf("%w\nusage: %s", err, c.UseLine())
			}
			return nil
		}
	}
}

// onlyCommands is what a command does that only has commands of its own: cobra would
// take an unknown one for an argument, and print the help as if that were what was
// asked for.
func onlyCommands(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return c.Help()
	}
	return noCommand(c, args)
}

// noCommand says that a command has none of its own with a name.
func noCommand(c *cobra.Command, args []string) error {
	var have []string
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			have = append(have, sub.Name())
		}
	}
	hint := didYouMean("", args[0], have)
	return fmt.Errorf("%s %s: there is no such command: use %s%s", c.CommandPath(), args[0], strings.Join(have, ", "), hint)
}

// explainHelp has --help behind a command that there is not say so: cobra would print the help of
// the one above, as if that were what was asked for.
func (a *app) explainHelp(c *cobra.Command) {
	help := c.HelpFunc()
	c.SetHelpFunc(func(c *cobra.Command, all []string) {
		if args := c.Flags().Args(); c.HasParent() && c.HasSubCommands() && len(args) > 0 {
			a.unhelped = noCommand(c, args)
			return
		}
		help(c, all)
	})
}

// explainFlag names the flag that was probably meant, or what a flag takes.
func explainFlag(c *cobra.Command, err error) error {
	if bad, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		return &shortError{fmt.Sprintf("--%s: %q: %s", bad.GetFlag().Name, bad.GetValue(), takes(bad)), err}
	}
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return err
	}
	var known []string
	c.Flags().VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
	hint := didYouMean("--", unknown.GetSpecifiedName(), known)
	return fmt.Errorf("%w: `%s --help` lists them%s", err, c.CommandPath(), hint)
}

// didYouMean asks for the one that was probably meant; "" where that is anybody's guess.
func didYouMean(prefix, name string, known []string) string {
	one := meant.One(name, known)
	if one == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s%s?", prefix, one)
}

// takes says what a flag takes that was given something else. What is no number and no time
// for Go would be told in the words of its library.
func takes(bad *pflag.InvalidValueError) string {
	f := bad.GetFlag()
	what := ""
	switch kind := f.Value.Type(); {
	case strings.HasPrefix(kind, "int") || strings.HasPrefix(kind, "uint"):
		if what = "this is no whole number: write one such as 100"; errors.Is(bad, strconv.ErrRange) {
			what = "this number is too large, or too small: write one such as 100"
		}
	case strings.HasPrefix(kind, "float"):
		what = "this is no number: write one such as 0.5"
	case kind == "duration":
		what = "this is no length of time: write one with its unit, such as 90s, 30m or 2h"
	case kind == "bool":
		what = fmt.Sprintf("this is neither true nor false: write --%s alone, or --%s=false", f.Name, f.Name)
	default:
		return errors.Unwrap(bad).Error()
	}
	_, usage := pflag.UnquoteUsage(f)
	return fmt.Sprintf("%s (%s)", what, usage)
}
