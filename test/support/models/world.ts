/**
 * Time and the event loop, moved by hand: what of them is used through globals is replaced as long as a world is installed.
 * So the registry of connections runs on its own clock, and that stands still.
 *
 * The loop goes as that of Node does: timers, then what has come from the network, then immediates. A timer may come a
 * fraction of a millisecond too early, as those of Node do.
 */
type Task = () => void

export class World {
  now = 1000.5
  /** Called when the loop looks for input. */
  poll: Task = () => {}
  private ticks: Array<Task> = []
  private immediates = new Map<object, Task>()
  private readonly timers = new Map<object, { readonly at: number; readonly f: Task }>()

  /** Whether something would keep the process alive. */
  get isBusy(): boolean {
    return this.timers.size > 0 || this.immediates.size > 0
  }

  /** Runs `f` in this world. */
  within<A>(f: () => A): A {
    const { clearImmediate, clearTimeout, queueMicrotask, setImmediate, setTimeout } = globalThis
    const { now } = performance
    performance.now = () => this.now
    Object.assign(globalThis, {
      setTimeout: (f: Task, millis: number) => {
        const timer = {}
        this.timers.set(timer, { at: this.now + Math.max(1, Math.trunc(millis)), f })
        return timer
      },
      clearTimeout: (timer: object) => void this.timers.delete(timer),
      setImmediate: (f: Task) => {
        const immediate = {}
        this.immediates.set(immediate, f)
        return immediate
      },
      clearImmediate: (immediate: object) => void this.immediates.delete(immediate),
      queueMicrotask: (f: Task) => this.nextTick(f)
    })
    try {
      return f()
    } finally {
      performance.now = now
      Object.assign(globalThis, { clearImmediate, clearTimeout, queueMicrotask, setImmediate, setTimeout })
    }
  }

  nextTick(f: Task): void {
    this.ticks.push(f)
  }

  /** Lets everything happen that needs no time. */
  settle(): void {
    this.tick()
    for (let turns = 0; this.immediates.size > 0; turns++) {
      if (turns > 1000) throw new Error("The event loop spins")
      // However little, each turn takes its time: a wait for the rest of a nanosecond ends.
      this.now += 0.0001
      this.poll()
      this.tick()
      // Those that are set meanwhile come after the next poll.
      const batch = this.immediates
      this.immediates = new Map()
      for (const f of batch.values()) {
        f()
        this.tick()
      }
    }
  }

  private tick(): void {
    for (let f = this.ticks.shift(); f !== undefined; f = this.ticks.shift()) f()
  }

  /** Lets so much time pass. */
  pass(millis: number): void {
    const until = this.now + millis
    for (;;) {
      let [next, due] = [undefined as object | undefined, until]
      for (const [timer, { at }] of this.timers) if (at < due) [next, due] = [timer, at]
      if (next === undefined) break
      this.now = Math.max(this.now, due)
      const { f } = this.timers.get(next)!
      this.timers.delete(next)
      f()
      this.settle()
    }
    this.now = until
  }
}
