// Command quotes is the upstream of the example: a service that tells a price to whoever asks.
package main

import (
	"fmt"
	"log"
	"math"
	"net/http"
	"os"
	"time"
)

func main() {
	address := "127.0.0.1:9100"
	if listen := os.Getenv("LISTEN"); listen != "" {
		address = listen
	}
	began := time.Now()
	http.HandleFunc("/quote", func(answer http.ResponseWriter, _ *http.Request) {
		price := 60_000 + 250*math.Sin(time.Since(began).Seconds())
		answer.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(answer, `{"instrument":"BTC-PERPETUAL","price":%.2f}`, price)
	})
	log.Printf("quotes on %s", address)
	log.Fatal(http.ListenAndServe(address, nil))
}
