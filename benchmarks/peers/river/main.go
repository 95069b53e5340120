// River's driver: the protocol of ../../README.md on river with pgx.
//
// Configured as River's own `river bench` is: 1,000 workers in all (the runner says how many each process gets),
// FetchCooldown 2 ms, FetchPollInterval 20 ms; bulk by InsertManyFast (COPY), 5,000 jobs a call.
package main

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

const bulk = 5000

var (
	pad     = strings.Repeat("x", 160)
	probe   net.Conn
	awaitMS = number("BENCH_AWAIT_MS", 0)
)

type args struct {
	Sent int64  `json:"sent"`
	Pad  string `json:"pad"`
}

func (args) Kind() string { return "noop" }

type worker struct{ river.WorkerDefaults[args] }

func (worker) Work(_ context.Context, job *river.Job[args]) error {
	started := time.Now().UnixNano()
	if awaitMS > 0 {
		time.Sleep(time.Duration(awaitMS) * time.Millisecond)
	}
	if probe != nil {
		fmt.Fprintf(probe, "%d %d %d", job.Args.Sent, started, time.Now().UnixNano())
	}
	return nil
}

func number(name string, otherwise int) int {
	if value, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return value
	}
	return otherwise
}

func must[T any](value T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return value
}

func connect(ctx context.Context, conns int) *pgxpool.Pool {
	config := must(pgxpool.ParseConfig(os.Getenv("BENCH_POSTGRES_URL")))
	config.MaxConns = int32(conns)
	return must(pgxpool.NewWithConfig(ctx, config))
}

func client(pool *pgxpool.Pool, queues map[string]river.QueueConfig) *river.Client[pgx.Tx] {
	workers := river.NewWorkers()
	river.AddWorker(workers, &worker{})
	return must(river.NewClient(riverpgxv5.New(pool), &river.Config{
		FetchCooldown:     2 * time.Millisecond,
		FetchPollInterval: 20 * time.Millisecond,
		Logger:            slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
		Queues:            queues,
		Workers:           workers,
	}))
}

func newArgs() args { return args{Sent: time.Now().UnixNano(), Pad: pad} }

func insertMany(ctx context.Context, c *river.Client[pgx.Tx], count int) {
	for count > 0 {
		params := make([]river.InsertManyParams, min(count, bulk))
		for i := range params {
			params[i].Args = newArgs()
		}
		must(c.InsertManyFast(ctx, params))
		count -= len(params)
	}
}

func insertEach(ctx context.Context, c *river.Client[pgx.Tx], count, callers int) {
	var left atomic.Int64
	left.Store(int64(count))
	var group sync.WaitGroup
	for range callers {
		group.Go(func() {
			for left.Add(-1) >= 0 {
				must(c.Insert(ctx, newArgs(), nil))
			}
		})
	}
	group.Wait()
}

// paced inserts what is due, at most every 10 ms.
func paced(ctx context.Context, c *river.Client[pgx.Tx], count, rate int) {
	begin, sent := time.Now(), 0
	for sent < count {
		if due := min(count, int(time.Since(begin).Seconds()*float64(rate))+1) - sent; due > 1 {
			insertMany(ctx, c, due)
			sent += due
		} else if due == 1 {
			must(c.Insert(ctx, newArgs(), nil))
			sent++
		}
		next := begin.Add(time.Duration(float64(sent) / float64(rate) * float64(time.Second)))
		time.Sleep(max(time.Until(next), 10*time.Millisecond))
	}
}

func enqueue(ctx context.Context, mode string, count, parameter int) {
	callers := 1
	if mode == "single" {
		callers = parameter
	}
	c := client(connect(ctx, callers+1), nil)
	fmt.Println("ready")
	must(bufio.NewReader(os.Stdin).ReadString('\n'))
	switch mode {
	case "bulk":
		insertMany(ctx, c, count)
	case "single":
		insertEach(ctx, c, count, callers)
	case "paced":
		paced(ctx, c, count, parameter)
	}
	fmt.Println("done")
}

func work(ctx context.Context) {
	if port := os.Getenv("BENCH_PROBE"); port != "" {
		probe = must(net.Dial("udp", "127.0.0.1:"+port))
	}
	slots := number("BENCH_CONCURRENCY", 1000)
	c := client(connect(ctx, 10), map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: slots}})
	must(0, c.Start(ctx))
	fmt.Println("ready")
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	<-stop
	_ = c.StopAndCancel(ctx)
}

func main() {
	ctx := context.Background()
	switch os.Args[1] {
	case "setup":
		migrator := must(rivermigrate.New(riverpgxv5.New(connect(ctx, 2)), nil))
		must(migrator.Migrate(ctx, rivermigrate.DirectionUp, nil))
	case "enqueue":
		enqueue(ctx, os.Args[2], must(strconv.Atoi(os.Args[3])), must(strconv.Atoi(os.Args[4])))
	case "work":
		work(ctx)
	}
}
