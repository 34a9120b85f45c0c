// Allocates, keeps and drops slices in several goroutines, under a busy collector. Prints "ready" once
// its heap is in use; then, for each line of standard input, its steps so far. Ends with 1 if memory
// does not hold what was stored there.
package main

import (
	"bufio"
	"fmt"
	"math/rand"
	"os"
	"runtime/debug"
	"sync/atomic"
	"time"
)

var steps uint64

func churn(seed int64) {
	random := rand.New(rand.NewSource(seed))
	kept := make(map[int][]byte)
	for {
		slot := random.Intn(200)
		for _, value := range kept[slot] {
			if value != byte(slot) {
				fmt.Fprintf(os.Stderr, "slot %d holds %d\n", slot, value)
				os.Exit(1)
			}
		}
		block := make([]byte, 1+random.Intn(32<<10))
		for i := range block {
			block[i] = byte(slot)
		}
		kept[slot] = block
		atomic.AddUint64(&steps, 1)
	}
}

func main() {
	debug.SetGCPercent(30)
	for i := int64(0); i < 8; i++ {
		go churn(i)
	}
	for atomic.LoadUint64(&steps) < 5000 {
		time.Sleep(5 * time.Millisecond)
	}
	fmt.Println("ready")
	for input := bufio.NewScanner(os.Stdin); input.Scan(); {
		fmt.Println(atomic.LoadUint64(&steps))
	}
}
