// Command router is the system under test of the example: it routes orders by the newest quote of an upstream service
// and must halt as soon as its quote is old. Its only configuration: LISTEN, where /health is answered, and QUOTES_URL.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"sync"
	"time"
)

const (
	askEvery   = 100 * time.Millisecond
	askFor     = time.Second
	routeEvery = 200 * time.Millisecond
	staleAfter = 2 * time.Second
)

// Health is what /health answers.
type Health struct {
	Mode         string   `json:"mode"`
	Reasons      []string `json:"reasons"`
	QuoteAgeMs   *int64   `json:"quote_age_ms"`
	QuotesSeen   int64    `json:"quotes_seen"`
	QuotesAsked  int64    `json:"quotes_asked"`
	OrdersRouted int64    `json:"orders_routed"`
}

// Router knows when its last quote came, and what it did with it.
type Router struct {
	mutex               sync.Mutex
	client              http.Client
	upstream            string
	last                time.Time
	seen, asked, routed int64
}

// ask fetches one quote; a quote that does not come in time is none.
func (router *Router) ask() {
	router.mutex.Lock()
	router.asked++
	router.mutex.Unlock()
	answer, err := router.client.Get(router.upstream + "/quote")
	if err != nil {
		return
	}
	defer answer.Body.Close()
	var quote struct {
		Price float64 `json:"price"`
	}
	if answer.StatusCode != http.StatusOK || json.NewDecoder(answer.Body).Decode(&quote) != nil || quote.Price <= 0 {
		return
	}
	router.mutex.Lock()
	defer router.mutex.Unlock()
	router.last = time.Now()
	router.seen++
}

// health says how things stand now; the caller holds the mutex.
func (router *Router) health() Health {
	health := Health{Mode: "running", Reasons: []string{}, QuotesSeen: router.seen, QuotesAsked: router.asked,
		OrdersRouted: router.routed}
	if router.seen == 0 {
		health.Mode, health.Reasons = "halted", []string{"NO_QUOTE_YET"}
		return health
	}
	age := time.Since(router.last)
	ms := age.Milliseconds()
	health.QuoteAgeMs = &ms
	if stale(age) {
		health.Mode, health.Reasons = "halted", []string{"QUOTE_STALE"}
	}
	return health
}

// route sends one order, unless the router has halted.
func (router *Router) route() {
	router.mutex.Lock()
	defer router.mutex.Unlock()
	if router.health().Mode == "running" {
		router.routed++
	}
}

func (router *Router) serve(answer http.ResponseWriter, _ *http.Request) {
	router.mutex.Lock()
	health := router.health()
	router.mutex.Unlock()
	answer.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(answer).Encode(health); err != nil {
		log.Print(err)
	}
}

func every(period time.Duration, do func()) {
	for range time.Tick(period) {
		do()
	}
}

func main() {
	listen, upstream := os.Getenv("LISTEN"), os.Getenv("QUOTES_URL")
	if listen == "" || upstream == "" {
		fmt.Fprintln(os.Stderr, "router: LISTEN and QUOTES_URL must be set")
		os.Exit(2)
	}
	router := &Router{upstream: upstream, client: http.Client{Timeout: askFor}}
	go every(askEvery, router.ask)
	go every(routeEvery, router.route)
	http.HandleFunc("/health", router.serve)
	log.Printf("router on %s, quotes from %s", listen, upstream)
	log.Fatal(http.ListenAndServe(listen, nil))
}
