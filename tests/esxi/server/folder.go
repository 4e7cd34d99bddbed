package main

import (
	"crypto/subtle"
	"errors"
	"html"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/vmware/govmomi/simulator"
)

// folder is the datastore over HTTP: who may, which datastore, which file, then the bytes.
func (f *front) folder(w http.ResponseWriter, r *http.Request) {
	user, password, basic := r.BasicAuth()
	allowed := basic && user == f.cfg.User && subtle.ConstantTimeCompare([]byte(password), []byte(f.cfg.Password)) == 1
	if !allowed && !f.session(r) {
		w.Header().Set("WWW-Authenticate", `Basic realm="VMware HTTP server"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	root, kind := f.datastore(r.URL)
	if root == "" {
		http.NotFound(w, r)
		return
	}
	name := filepath.Join(root, path.Clean("/"+strings.TrimPrefix(r.URL.Path, "/folder")))
	w, over := f.faults.data(w, r, strings.TrimPrefix(name, root+"/"))
	if over {
		return
	}
	if status := f.faults.refuseGet(); status != 0 && extent(name) && r.Method != http.MethodPut {
		w.WriteHeader(status)
		return
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		get(w, r, name, kind)
	case http.MethodPut:
		f.put(w, r, name, kind)
	case http.MethodDelete:
		remove(w, name)
	default:
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
}

// datastore finds the directory behind dcPath and dsName. A vCenter insists on the datacenter's path, folders included.
func (f *front) datastore(address *url.URL) (string, string) {
	query := address.Query()
	center, datacenter := query.Get("dcPath"), "ha-datacenter"
	if f.cfg.VCenter {
		datacenter = strings.TrimPrefix(f.cfg.Folder+"/"+f.cfg.Datacenter, "/")
	} else if center == "" {
		center = datacenter
	}
	if !f.means(center, datacenter) {
		return "", ""
	}
	for _, each := range simulator.Map.All("Datastore") {
		if found, ok := each.(*simulator.Datastore); ok && f.means(query.Get("dsName"), found.Name) {
			return found.Info.GetDatastoreInfo().Url, found.Summary.Type
		}
	}
	return "", ""
}

func (f *front) means(said, name string) bool {
	if !f.cfg.DoubleEncoded {
		return said == name
	}
	decoded, err := url.PathUnescape(said)
	return err == nil && decoded == name && (said != name || url.PathEscape(name) == name)
}

func extent(name string) bool {
	return strings.HasSuffix(name, "-flat.vmdk") || strings.HasSuffix(name, "-delta.vmdk") || strings.HasSuffix(name, "-sesparse.vmdk")
}

func get(w http.ResponseWriter, r *http.Request, name, kind string) {
	found, err := os.Stat(name)
	switch {
	case err != nil || kind == "vsan" && extent(name):
		http.NotFound(w, r)
	case extent(name) && running(filepath.Dir(name)):
		w.WriteHeader(http.StatusInternalServerError) // locked
	case found.IsDir():
		list(w, name)
	default:
		file, err := os.Open(name)
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		defer file.Close()
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", found.ModTime(), file)
	}
}

func list(w http.ResponseWriter, name string) {
	entries, _ := os.ReadDir(name)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	for _, each := range entries {
		_, _ = io.WriteString(w, "<a href=\""+url.PathEscape(each.Name())+"\">"+html.EscapeString(each.Name())+"</a>\n")
	}
}

func (f *front) put(w http.ResponseWriter, r *http.Request, name, kind string) {
	switch {
	case f.faults.refusePut() != 0:
		w.WriteHeader(f.faults.refusePut())
		return
	case kind == "vsan" && extent(name):
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	file, err := os.Create(name)
	if err != nil {
		w.WriteHeader(http.StatusNotFound) // no such folder
		return
	}
	_, err = io.Copy(file, r.Body)
	_ = file.Close()
	if errors.Is(err, errFull) {
		w.WriteHeader(http.StatusInsufficientStorage)
		return
	}
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.WriteHeader(http.StatusCreated)
}

func remove(w http.ResponseWriter, name string) {
	if err := os.Remove(name); err != nil {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
