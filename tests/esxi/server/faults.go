package main

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Orders are the faults that a test asks for. They concern requests whose path contains Match.
type orders struct {
	Match          string
	Cuts           []int64 // each answer with data takes the first one, and ends after so many bytes
	Unavailable    int     // so many requests are answered with 503
	RetryAfter     int     // seconds, in those answers
	Stalls         int     // so many requests are never answered
	BytesPerSecond int64   // of each stream
	Expire         int64   // sessions end after so many bytes of data, once
	RefusePut      int     // the status of each PUT
	RefuseGet      int     // the status of each GET and HEAD of the bytes of a disk
	FullAfter      int64   // uploads: bytes of each, until there is no more room
	RefuseCalls    []string
	IgnoreCalls    []string // answered as if they had been carried out; of those without a value
	Unavailable503 int // so many calls of the API are answered with 503
}

type counters struct {
	Bytes       map[string]int64 // sent or received, by path
	Requests    map[string]int   // by method and path
	Calls       map[string]int   // of the API
	Cuts        int              // that were made
	Connections int              // now
	Peak        int
	Busy        int // requests for data under way
	Busiest     int // at most
	Sessions    int
	Leases      int // that are neither done nor failed
}

type faults struct {
	mutex  sync.Mutex
	orders orders
	count  counters
	front  *front
}

func newFaults() *faults {
	return &faults{count: counters{Bytes: map[string]int64{}, Requests: map[string]int{}, Calls: map[string]int{}}}
}

func (f *faults) connection(state http.ConnState) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	switch state {
	case http.StateNew:
		f.count.Connections++
		if f.count.Connections > f.count.Peak {
			f.count.Peak = f.count.Connections
		}
	case http.StateClosed, http.StateHijacked:
		f.count.Connections--
	}
}

func (f *faults) called(method string) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.count.Calls[method]++
}

func (f *faults) refused(method string) bool {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return among(f.orders.RefuseCalls, method)
}

func (f *faults) ignored(method string) bool {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return among(f.orders.IgnoreCalls, method)
}

func among(all []string, one string) bool {
	for _, each := range all {
		if each == one {
			return true
		}
	}
	return false
}

func (f *faults) refuseGet() int {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return f.orders.RefuseGet
}

func (f *faults) refusePut() int {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return f.orders.RefusePut
}

func (f *faults) takeSOAP() bool {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.orders.Unavailable503--
	return f.orders.Unavailable503 >= 0
}

// data counts a request and does it the harm that was ordered; true: it has been answered.
func (f *faults) data(w http.ResponseWriter, r *http.Request, path string) (http.ResponseWriter, bool) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.count.Requests[r.Method+" "+path]++
	counted := &throttled{ResponseWriter: w, faults: f, path: path, left: -1}
	if r.Method != http.MethodHead {
		f.enter(r, counted)
	}
	r.Body = &counting{ReadCloser: r.Body, faults: f, path: path, pace: pace{start: time.Now()}, room: f.orders.FullAfter}
	if !strings.Contains(path, f.orders.Match) || r.Method == http.MethodHead {
		return counted, false
	}
	counted.pace = pace{rate: f.orders.BytesPerSecond, start: time.Now()}
	r.Body.(*counting).pace = counted.pace
	switch {
	case f.orders.Unavailable > 0:
		f.orders.Unavailable--
		if f.orders.RetryAfter > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(f.orders.RetryAfter))
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		return w, true
	case f.orders.Stalls > 0:
		f.orders.Stalls--
		f.mutex.Unlock()
		<-r.Context().Done()
		f.mutex.Lock()
		return w, true
	case len(f.orders.Cuts) > 0:
		counted.left, f.orders.Cuts = f.orders.Cuts[0], f.orders.Cuts[1:]
		r.Body.(*counting).left, r.Body.(*counting).cut = counted.left, true
	}
	return counted, false
}

// enter counts a request that is under way until its context ends, if not earlier; the lock is held.
func (f *faults) enter(r *http.Request, counted *throttled) {
	f.count.Busy++
	if f.count.Busy > f.count.Busiest {
		f.count.Busiest = f.count.Busy
	}
	go func() {
		<-r.Context().Done()
		counted.leave()
	}()
}

func (f *faults) cut() {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.count.Cuts++
}

func (f *faults) moved(path string, n int) {
	f.mutex.Lock()
	f.count.Bytes[path] += int64(n)
	expired := f.orders.Expire > 0 && f.orders.Expire <= int64(n)
	if f.orders.Expire > 0 {
		f.orders.Expire -= int64(n)
	}
	f.mutex.Unlock()
	if expired {
		f.front.expire(true)
	}
}

// A pace keeps one stream at a number of bytes a second.
type pace struct {
	rate  int64
	start time.Time
	moved int64
}

func (p *pace) wait(n int) {
	p.moved += int64(n)
	if p.rate > 0 {
		due := time.Duration(float64(p.moved) / float64(p.rate) * float64(time.Second))
		time.Sleep(time.Until(p.start.Add(due)))
	}
}

// A throttled answer counts its bytes, keeps a pace, and may be cut.
type throttled struct {
	http.ResponseWriter
	faults *faults
	path   string
	pace   pace
	left   int64 // until the cut; negative: none
	once   sync.Once
}

// leave says that the request is no longer under way: before its last byte, after which a client may send another one.
func (t *throttled) leave() {
	t.once.Do(func() {
		t.faults.mutex.Lock()
		defer t.faults.mutex.Unlock()
		t.faults.count.Busy--
	})
}

func (t *throttled) Write(data []byte) (int, error) {
	if length := t.Header().Get("Content-Length"); length == strconv.FormatInt(t.pace.moved+int64(len(data)), 10) {
		t.leave()
	}
	if t.left >= 0 && int64(len(data)) > t.left {
		data = data[:t.left]
		n, _ := t.ResponseWriter.Write(data)
		t.faults.moved(t.path, n)
		t.faults.cut()
		t.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	n, err := t.ResponseWriter.Write(data)
	if t.left >= 0 {
		t.left -= int64(n)
	}
	t.faults.moved(t.path, n)
	t.pace.wait(n)
	return n, err
}

// A counting body does the same for uploads.
type counting struct {
	io.ReadCloser
	faults *faults
	path   string
	pace   pace
	left   int64
	cut    bool
	room   int64 // until the datastore is full; 0: for ever
	taken  int64
}

var errFull = errors.New("no space left on device")

func (c *counting) Read(data []byte) (int, error) {
	n, err := c.ReadCloser.Read(data)
	if c.taken += int64(n); c.room > 0 && c.taken > c.room {
		return 0, errFull
	}
	c.faults.moved(c.path, n)
	c.pace.wait(n)
	if c.left -= int64(n); c.cut && c.left < 0 {
		c.faults.cut()
		panic(http.ErrAbortHandler)
	}
	return n, err
}

// control is a server of its own: orders, counters, the end of all sessions.
func (f *faults) control(front *front) http.Handler {
	f.front = front
	mux := http.NewServeMux()
	mux.HandleFunc("/orders", func(w http.ResponseWriter, r *http.Request) {
		var wanted orders
		if err := json.NewDecoder(r.Body).Decode(&wanted); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		f.mutex.Lock()
		f.orders = wanted
		f.mutex.Unlock()
	})
	mux.HandleFunc("/counters", func(w http.ResponseWriter, r *http.Request) {
		front.mutex.Lock()
		sessions, leases := len(front.sessions), 0
		for _, each := range front.leases {
			if each.shown.State == "ready" || each.shown.State == "initializing" {
				leases++
			}
		}
		front.mutex.Unlock()
		f.mutex.Lock()
		defer f.mutex.Unlock()
		f.count.Sessions, f.count.Leases = sessions, leases
		_ = json.NewEncoder(w).Encode(&f.count)
	})
	mux.HandleFunc("/reset", func(w http.ResponseWriter, r *http.Request) {
		f.mutex.Lock()
		defer f.mutex.Unlock()
		f.orders = orders{}
		f.count = counters{Bytes: map[string]int64{}, Requests: map[string]int{}, Calls: map[string]int{},
			Connections: f.count.Connections, Peak: f.count.Connections, Busy: f.count.Busy}
	})
	mux.HandleFunc("/expire", func(w http.ResponseWriter, r *http.Request) { front.expire(r.URL.Query().Get("api") != "") })
	return mux
}
