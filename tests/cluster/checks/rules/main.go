// Checks files of alerting and recording rules with Prometheus' own reader: expressions, durations, templates, labels.
//
// promtool does the same, but brings clients of every cloud along, one of which the module proxy does not have.
package main

import (
	"fmt"
	"log/slog"
	"os"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

func main() {
	failed := len(os.Args) < 2
	for _, path := range os.Args[1:] {
		groups, errors := rulefmt.ParseFile(path, false, model.UTF8Validation, parser.NewParser(parser.Options{}), slog.Default())
		for _, err := range errors {
			fmt.Fprintf(os.Stderr, "%s: %v\n", path, err)
			failed = true
		}
		if groups != nil {
			rules := 0
			for _, group := range groups.Groups {
				rules += len(group.Rules)
			}
			fmt.Printf("%s: %d groups, %d rules\n", path, len(groups.Groups), rules)
		}
	}
	if failed {
		os.Exit(1)
	}
}
