package enginetest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// watchScript cleans up behind an owner that died. It waits for the end of its input, which the kernel brings about
// however the owner ends; Pdeathsig would not do, being tied to a thread of the owner's and not to the owner. The folder
// comes by the environment, so that the search of command lines does not find the watcher itself.
const watchScript = `
while read -r _; do :; done
[ -d "$ENGINE_DIR" ] || exit 0
ours() { case "$(tr '\0' ' ' <"/proc/$1/cmdline" 2>/dev/null)" in *"$ENGINE_DIR/"*) true ;; *) false ;; esac; }
pid=$(cat "$ENGINE_DIR/pid" 2>/dev/null) && ours "$pid" && kill -TERM "$pid"
n=0
while [ -n "$pid" ] && ours "$pid" && [ $n -lt 100 ]; do sleep 0.1; n=$((n+1)); done
for p in /proc/[0-9]*; do
	p=${p#/proc/}
	if ours "$p"; then kill -KILL "$p"; fi
done
cut -d ' ' -f 5 /proc/self/mountinfo | grep -F "$ENGINE_DIR/" | sort -r | while read -r m; do umount -l "$m"; done
rm -rf "$ENGINE_DIR"
`

// watch starts the watcher of this engine.
func (p *private) watch() error {
	p.watcher = exec.Command("/bin/sh", "-c", watchScript)
	p.watcher.Env = append(os.Environ(), "ENGINE_DIR="+p.dir)
	p.watcher.Dir = "/"
	p.watcher.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // signals to the owner's group are not for it
	alive, err := p.watcher.StdinPipe()                        // close-on-exec: no other child keeps it open
	if err != nil {
		return err
	}
	p.alive = alive
	return p.watcher.Start()
}

// sweepLeftovers removes the folders of engines whose owner and watcher are both gone, as after a power loss. The owner's
// lock tells: the kernel drops it with the process, and unlike a pid it means the same in every container that shares the folder.
func sweepLeftovers(parent string) {
	dirs, _ := filepath.Glob(filepath.Join(parent, dirPrefix+"*"))
	for _, dir := range dirs {
		info, err := os.Stat(dir)
		// A folder this young may be between its creation and its lock.
		if err != nil || !info.IsDir() || time.Since(info.ModTime()) < time.Minute {
			continue
		}
		lock, err := tryLock(filepath.Join(dir, lockName))
		if err != nil {
			continue // its owner lives
		}
		_ = destroy(dir) // whatever remains is tried again at the next start
		_ = lock.Close()
	}
}

// destroy kills what runs in dir, unmounts what is mounted there, and removes it.
func destroy(dir string) error {
	kill(processesOf(dir, nil))
	var err error
	for range 20 { // a process that is dying can still hold a mount
		if err = unmountBelow(dir); err == nil {
			if err = os.RemoveAll(dir); err == nil {
				return nil
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Errorf("remove the engine's folder: %w", err)
}

// process is what /proc tells of a process.
type process struct {
	pid, parent int
	argv        []string
}

func processes() []process {
	names, _ := filepath.Glob("/proc/[0-9]*")
	var all []process
	for _, name := range names {
		pid, err := strconv.Atoi(filepath.Base(name))
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(filepath.Join(name, "stat"))
		if err != nil {
			continue // it has ended
		}
		// pid (command) state ppid …, and the command may hold anything.
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(fields) < 2 || fields[0] == "Z" {
			continue
		}
		parent, _ := strconv.Atoi(fields[1])
		cmdline, _ := os.ReadFile(filepath.Join(name, "cmdline"))
		all = append(all, process{pid: pid, parent: parent, argv: strings.Split(string(cmdline), "\x00")})
	}
	return all
}

// processesOf finds the processes that belong to the engine in dir: dockerd, containerd, shims and docker commands, which
// all name dir on their command lines, and what those run in containers. With only, those alone whose program it accepts.
func processesOf(dir string, only func(argv0 string) bool) []int {
	all := processes()
	var pids []int
	for _, p := range all {
		named := slices.ContainsFunc(p.argv, func(arg string) bool { return strings.Contains(arg, dir+"/") })
		if named && p.pid != os.Getpid() && (only == nil || only(p.argv[0])) {
			pids = append(pids, p.pid)
		}
	}
	if only != nil {
		return pids
	}
	for i := 0; i < len(pids); i++ { // grows while it runs
		for _, p := range all {
			if p.parent == pids[i] && !slices.Contains(pids, p.pid) {
				pids = append(pids, p.pid)
			}
		}
	}
	return pids
}

// kill ends the processes with SIGKILL and waits, five seconds at most, until they are gone.
func kill(pids []int) {
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	for range 500 {
		gone := true
		for _, p := range processes() {
			gone = gone && !slices.Contains(pids, p.pid)
		}
		if gone {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// unmountBelow unmounts everything below dir, the deepest first.
func unmountBelow(dir string) error {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var points []string
	for line := range strings.Lines(string(info)) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		point := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(fields[4])
		if strings.HasPrefix(point, dir+"/") {
			points = append(points, point)
		}
	}
	slices.Sort(points)
	var errs []error
	for _, point := range slices.Backward(points) {
		if err := syscall.Unmount(point, syscall.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", point, err))
		}
	}
	return errors.Join(errs...)
}
