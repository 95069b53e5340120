// asynq's driver: the protocol of ../../README.md on asynq.
//
// Concurrency is our slots; empty queues are looked at every 10 ms (TaskCheckInterval; 1 s by default); no retention, so
// a finished task is gone from Redis; the log only tells errors. There is no bulk interface: bulk is 50 callers at once.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"
)

const bulkCallers = 50

var (
	pad     = strings.Repeat("x", 160)
	probe   net.Conn
	awaitMS = number("BENCH_AWAIT_MS", 0)
)

type args struct {
	Sent int64  `json:"sent"`
	Pad  string `json:"pad"`
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

func handle(_ context.Context, task *asynq.Task) error {
	started := time.Now().UnixNano()
	var payload args
	if err := json.Unmarshal(task.Payload(), &payload); err != nil {
		return err
	}
	if awaitMS > 0 {
		time.Sleep(time.Duration(awaitMS) * time.Millisecond)
	}
	if probe != nil {
		fmt.Fprintf(probe, "%d %d %d", payload.Sent, started, time.Now().UnixNano())
	}
	return nil
}

func enqueueOne(client *asynq.Client) {
	payload := must(json.Marshal(args{Sent: time.Now().UnixNano(), Pad: pad}))
	must(client.Enqueue(asynq.NewTask("bench", payload)))
}

func enqueueEach(client *asynq.Client, count, callers int) {
	var left atomic.Int64
	left.Store(int64(count))
	var group sync.WaitGroup
	for range callers {
		group.Go(func() {
			for left.Add(-1) >= 0 {
				enqueueOne(client)
			}
		})
	}
	group.Wait()
}

// paced enqueues what is due, at most every 10 ms.
func paced(client *asynq.Client, count, rate int) {
	begin, sent := time.Now(), 0
	for sent < count {
		if due := min(count, int(time.Since(begin).Seconds()*float64(rate))+1) - sent; due > 1 {
			enqueueEach(client, due, bulkCallers)
			sent += due
		} else if due == 1 {
			enqueueOne(client)
			sent++
		}
		next := begin.Add(time.Duration(float64(sent) / float64(rate) * float64(time.Second)))
		time.Sleep(max(time.Until(next), 10*time.Millisecond))
	}
}

func enqueue(redis asynq.RedisConnOpt, mode string, count, parameter int) {
	client := asynq.NewClient(redis)
	must(0, client.Ping())
	fmt.Println("ready")
	must(bufio.NewReader(os.Stdin).ReadString('\n'))
	switch mode {
	case "bulk":
		enqueueEach(client, count, bulkCallers)
	case "single":
		enqueueEach(client, count, parameter)
	case "paced":
		paced(client, count, parameter)
	}
	fmt.Println("done")
}

func work(redis asynq.RedisConnOpt) {
	if port := os.Getenv("BENCH_PROBE"); port != "" {
		probe = must(net.Dial("udp", "127.0.0.1:"+port))
	}
	server := asynq.NewServer(redis, asynq.Config{
		Concurrency:       number("BENCH_CONCURRENCY", 1000),
		TaskCheckInterval: 10 * time.Millisecond,
		LogLevel:          asynq.ErrorLevel,
	})
	must(0, server.Run(asynq.HandlerFunc(handle)))
}

func main() {
	redis := must(asynq.ParseRedisURI(os.Getenv("BENCH_REDIS_URL")))
	switch os.Args[1] {
	case "setup":
	case "enqueue":
		enqueue(redis, os.Args[2], must(strconv.Atoi(os.Args[3])), must(strconv.Atoi(os.Args[4])))
	case "work":
		work(redis)
	}
}
