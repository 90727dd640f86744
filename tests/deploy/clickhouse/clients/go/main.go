// What a Go program of finance does: clickhouse-go over HTTP, in each compression.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
)

func must(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func options(method clickhouse.CompressionMethod) *clickhouse.Options {
	return &clickhouse.Options{
		Addr:        []string{"127.0.0.1:" + os.Args[1]},
		Protocol:    clickhouse.HTTP,
		Auth:        clickhouse.Auth{Database: "metering", Username: os.Args[2], Password: os.Args[3]},
		Settings:    clickhouse.Settings{"max_execution_time": 60},
		Compression: &clickhouse.Compression{Method: method},
	}
}

func check(name string, method clickhouse.CompressionMethod) {
	connection, err := clickhouse.Open(options(method))
	must(err)
	background := context.Background()
	must(connection.Ping(background))

	rows, err := connection.Query(background, `SELECT id, a, b, m, at, toLowCardinality(a),
		toNullable(id), tuple(1, 'x') FROM t WHERE id < @id ORDER BY id`, clickhouse.Named("id", 3))
	must(err)
	first := 0
	for ; rows.Next(); first++ {
		var id int64
		var text, repeated string
		var list []int8
		var mapped map[string]int64
		var at time.Time
		var nullable *int64
		var pair []any
		must(rows.Scan(&id, &text, &list, &mapped, &at, &repeated, &nullable, &pair))
	}
	must(rows.Err())

	rows, err = connection.Query(background, "SELECT number, toString(number) FROM numbers(200000)")
	must(err)
	long := 0
	for ; rows.Next(); long++ {
	}
	must(rows.Err())

	rows, err = connection.Query(background, "SELECT id FROM t WHERE id < 0")
	must(err)
	empty := len(rows.Columns())
	for rows.Next() {
		empty = -1
	}

	bound := clickhouse.Context(background, clickhouse.WithParameters(clickhouse.Parameters{"least": "5"}))
	var counted uint64
	must(connection.QueryRow(bound, "SELECT count() FROM t WHERE id > {least:Int64}").Scan(&counted))

	var summed int64
	must(clickhouse.OpenDB(options(method)).QueryRow("SELECT sum(id) FROM t").Scan(&summed))

	refused := strings.Contains(fmt.Sprint(connection.Exec(background, "DROP TABLE t")), "code: 164")
	fmt.Println(name, first, long, empty, counted, summed, refused)
}

func main() {
	check("none", clickhouse.CompressionNone)
	check("lz4", clickhouse.CompressionLZ4)
	check("zstd", clickhouse.CompressionZSTD)
	check("gzip", clickhouse.CompressionGZIP)
}
