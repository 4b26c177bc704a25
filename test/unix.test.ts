/**
 * The file of a Unix socket, with real sockets and, where processes race, with real processes.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Result, type Scope } from "effect"
import { spawnSync } from "node:child_process"
import fs from "node:fs"
import { connect, createServer, type Server, type Socket } from "node:net"
import { basename, dirname, join, relative } from "node:path"
import * as Bind from "../src/internal/bind.ts"
import { decodeMode } from "../src/internal/unix.ts"
import * as Program from "./support/program.ts"
import { ask, directory, errno, file, foreign, instead, server, stale, unprivileged } from "./support/unix.ts"

/** A place for a socket in a directory of the test's own. */
const place = Effect.map(directory, (at) => join(at, "app.sock"))

/** A server of ours on `path`, which stops with the scope. */
const ours = Effect.fnUntraced(function* (path: string, options: Bind.Options = {}, name = "ours") {
  const self = yield* server(name)
  const bound = yield* Bind.listen(self, { path, ...options })
  yield* Effect.addFinalizer(() => Effect.sync(bound.stop))
  return { server: self, ...bound }
})

/** Why `path` cannot be listened on. Sees to it that nothing listens, and nothing is left beside it. */
const refused = Effect.fnUntraced(function* (path: string, options: Bind.Options = {}) {
  const self = yield* server("refused")
  const before = beside(path)
  const error = yield* Effect.flip(Bind.listen(self, { path, ...options }))
  assert.isFalse(self.listening)
  assert.deepStrictEqual([self.listenerCount("listening"), self.listenerCount("error")], [0, 0])
  assert.deepStrictEqual(beside(path), before)
  assert.isTrue(error.message.startsWith(`Cannot listen on ${path}: `), error.message)
  return error.message.slice(`Cannot listen on ${path}: `.length)
})

const beside = (path: string): ReadonlyArray<string> => {
  try {
    return fs.readdirSync(dirname(path)).sort()
  } catch {
    return []
  }
}

const mode = (path: string): string => (fs.lstatSync(path).mode & 0o777).toString(8)

const closed = (self: Server) => Effect.callback<void>((resume) => void self.once("close", () => resume(Effect.void)))

/** A connection to `path` that stays open; fails with the code of why it cannot be. */
const connected = (path: string): Effect.Effect<Socket, string | undefined, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<Socket, string | undefined>((resume) => {
      const socket = connect({ path, allowHalfOpen: true }, () => resume(Effect.succeed(socket)))
      socket.on("error", ({ code }: NodeJS.ErrnoException) => resume(Effect.fail(code)))
    }),
    (socket) => Effect.sync(() => void socket.destroy())
  )

describe("a path where nothing is", () => {
  it.live("gets a socket that answers, and nothing else is left beside it", () =>
    Effect.gen(function* () {
      const path = yield* place
      const bound = yield* ours(path)
      assert.strictEqual(bound.address, path)
      assert.strictEqual(bound.server.address(), path)
      assert.deepStrictEqual(beside(path), ["app.sock"])
      assert.strictEqual(yield* ask(path), "ours")
    })
  )

  it.live("has its socket, its mode and its address by the time of `listening`", () =>
    Effect.gen(function* () {
      const path = yield* place
      const self = yield* server("ours")
      let seen: ReadonlyArray<unknown> = []
      self.prependListener("listening", () => {
        seen = [fs.lstatSync(path).isSocket(), mode(path), self.address(), beside(path)]
      })
      const bound = yield* Bind.listen(self, { path, mode: 0o640 })
      assert.deepStrictEqual(seen, [true, "640", path, ["app.sock"]])
      bound.stop()
    })
  )

  it.live("may be a relative one, and its file is found again from another working directory", () =>
    Effect.gen(function* () {
      const path = yield* place
      const cwd = process.cwd()
      yield* Effect.addFinalizer(() => Effect.sync(() => process.chdir(cwd)))
      for (const from of [dirname(path), dirname(dirname(path))]) {
        process.chdir(from)
        const bound = yield* ours(relative(from, path))
        assert.strictEqual(bound.server.address(), relative(from, path))
        assert.strictEqual(yield* ask(path), "ours")
        process.chdir(cwd)
        bound.stop()
        assert.deepStrictEqual(beside(path), [])
      }
    })
  )

  it.live("gets its socket also on a file system without links", () =>
    Effect.gen(function* () {
      const path = yield* place
      yield* instead("linkSync", () => () => {
        throw errno("EPERM")
      })
      yield* ours(path)
      assert.strictEqual(yield* ask(path), "ours")
      assert.deepStrictEqual(beside(path), ["app.sock"])
    })
  )

  it.live("is as long as the system allows, and not a byte longer", () =>
    Effect.gen(function* () {
      const longest = process.platform === "linux" ? 107 : 103
      const parent = yield* directory
      const fill = (bytes: number) => join(parent, "x".repeat(bytes - parent.length - 1))
      const bound = yield* ours(fill(longest))
      assert.strictEqual(yield* ask(bound.address), "ours")
      assert.strictEqual(yield* refused(fill(longest + 1)), "the path is too long")
      // Where it is made has ten bytes more than the directory.
      const deep = fill(longest - 10)
      fs.mkdirSync(deep)
      assert.strictEqual(yield* ask((yield* ours(join(deep, "a"))).address), "ours")
      fs.mkdirSync(`${deep}y`)
      assert.strictEqual(yield* refused(join(`${deep}y`, "a")), "the path is too long")
    })
  )

  it.live.each<{ what: string; at: (path: string) => string; says: string; before?: (path: string) => void }>([
    {
      what: "a directory that does not exist",
      at: (path) => join(path, "app.sock"),
      says: "there is no such directory"
    },
    {
      what: "a directory that is a file",
      before: (path) => fs.writeFileSync(path, "text"),
      at: (path) => join(path, "app.sock"),
      says: "a part of the path is not a directory"
    },
    {
      what: "a directory that may not be written to",
      before: (path) => fs.mkdirSync(path, { mode: 0o555 }),
      at: (path) => join(path, "app.sock"),
      says: "permission denied"
    },
    {
      what: "a directory that may not be entered",
      before: (path) => {
        fs.mkdirSync(join(path, "inner"), { recursive: true })
        fs.chmodSync(path, 0)
      },
      at: (path) => join(path, "inner/app.sock"),
      says: "permission denied"
    }
  ])("in $what is an error that says so", ({ at, before, says }) =>
    Effect.gen(function* () {
      const path = yield* place
      fs.chmodSync(dirname(path), 0o755)
      before?.(path)
      const program = yield* Program.start(Program.beside(import.meta.url, "support/refused.ts"), { args: [at(path)] })
      yield* program.printed(new RegExp(`^Cannot listen on ${at(path)}: ${says}$`, "m"))
      if (before !== undefined) fs.chmodSync(path, 0o755)
      assert.deepStrictEqual(beside(at(path)), [])
    })
  )

  it.live("on a file system that is read-only is an error that says so", () =>
    Effect.gen(function* () {
      const path = yield* place
      yield* instead("openSync", () => () => {
        throw errno("EROFS")
      })
      assert.strictEqual(yield* refused(path), "the file system is read-only")
    })
  )
})

describe("a socket that nobody listens on", () => {
  it.live("is replaced", () =>
    Effect.gen(function* () {
      const path = yield* place
      yield* stale(path)
      assert.strictEqual(yield* ask(path), "ECONNREFUSED")
      const bound = yield* ours(path, { mode: 0o600 })
      assert.strictEqual(yield* ask(path), "ours")
      assert.strictEqual(bound.server.address(), path)
      assert.strictEqual(mode(path), "600")
      assert.deepStrictEqual(beside(path), ["app.sock"])
    })
  )

  it.live("that goes in the moment in which it is looked at is not missed", () =>
    Effect.gen(function* () {
      const path = yield* place
      yield* stale(path)
      let looks = 0
      yield* instead("lstatSync", (original) => (...args) => {
        const found = original(...args)
        if (looks++ === 0) fs.unlinkSync(path)
        return found
      })
      yield* ours(path)
      assert.strictEqual(yield* ask(path), "ours")
    })
  )

  it.live("is replaced after a process was killed", () =>
    Effect.gen(function* () {
      const path = yield* place
      const before = yield* contender(path)
      assert.strictEqual(yield* begin(before, `${path}0`), "won")
      yield* before.kill("SIGKILL")
      yield* before.ended
      assert.strictEqual(yield* ask(`${path}0`), "ECONNREFUSED")
      yield* ours(`${path}0`)
      assert.strictEqual(yield* ask(`${path}0`), "ours")
    })
  )
})

describe("a socket that somebody listens on", () => {
  it.live("is in use, and goes on", () =>
    Effect.gen(function* () {
      const path = yield* place
      yield* foreign(path)
      const before = file(path)
      assert.strictEqual(yield* refused(path), "the address is in use")
      assert.strictEqual(file(path), before)
      assert.strictEqual(yield* ask(path), "foreign")
    })
  )

  it.live("is in use for this process, too", () =>
    Effect.gen(function* () {
      const path = yield* place
      yield* ours(path)
      assert.strictEqual(yield* refused(path), "the address is in use")
      assert.strictEqual(yield* ask(path), "ours")
    })
  )

  it.live("is in use for a process that ends right after, though it is not let go", () =>
    Effect.gen(function* () {
      const path = yield* place
      fs.chmodSync(dirname(path), 0o755)
      const self = createServer({ allowHalfOpen: true })
      yield* Effect.acquireRelease(Effect.succeed(self), () => Effect.sync(() => void self.close()))
      let peer: Socket | undefined
      self.on("connection", (socket) => void (peer = socket))
      yield* Effect.callback<void>((resume) => void self.listen({ path, writableAll: true }, () => resume(Effect.void)))
      const program = yield* Program.start(Program.beside(import.meta.url, "support/refused.ts"), { args: [path] })
      yield* program.printed(/: the address is in use/)
      assert.strictEqual((yield* program.ended).code, 0)
      peer!.destroy()
    })
  )

  it.live("is in use while its process is too busy to accept", () =>
    Effect.gen(function* () {
      const path = yield* place
      const busy = yield* contender(path)
      yield* begin(busy, `${path}0`)
      yield* busy.kill("SIGSTOP")
      // Its backlog has room for 512.
      assert.strictEqual(yield* Effect.flip(Effect.forever(connected(`${path}0`))), "EAGAIN")
      assert.strictEqual(yield* refused(`${path}0`), "the address is in use")
      yield* busy.kill("SIGCONT")
      const answer = yield* Effect.repeat(ask(`${path}0`), { while: (text) => text === "EAGAIN" })
      assert.strictEqual(answer, String(busy.pid))
    })
  )

  it.live("is not in use if its server closes before it accepts who looks", () =>
    Effect.gen(function* () {
      const path = yield* place
      const other = yield* foreign(path)
      const fiber = yield* Effect.forkChild(ours(path), { startImmediately: true })
      other.close()
      yield* Fiber.join(fiber)
      assert.strictEqual(yield* ask(path), "ours")
    })
  )

  it.live("can be listened on by the same server when it has gone", () =>
    Effect.gen(function* () {
      const path = yield* place
      const other = yield* foreign(path)
      const self = yield* server("ours")
      yield* Effect.flip(Bind.listen(self, { path }))
      other.close()
      const bound = yield* Bind.listen(self, { path })
      assert.strictEqual(self.address(), path)
      assert.strictEqual(yield* ask(path), "ours")
      bound.stop()
    })
  )
})

describe("anything else at the path", () => {
  const others: ReadonlyArray<{ what: string; put: (path: string) => void }> = [
    { what: "a file", put: (path) => fs.writeFileSync(path, "text") },
    { what: "an empty file", put: (path) => fs.writeFileSync(path, "") },
    { what: "a directory", put: (path) => fs.mkdirSync(path) },
    { what: "a symbolic link to nothing", put: (path) => fs.symlinkSync(`${path}.none`, path) },
    { what: "a pipe", put: (path) => assert.strictEqual(spawnSync("mkfifo", [path]).status, 0) }
  ]

  it.live.each(others)("$what: stays as it is, and is an error that says so", ({ put }) =>
    Effect.gen(function* () {
      const path = yield* place
      put(path)
      const before = file(path)
      assert.strictEqual(yield* refused(path, { mode: 0o600 }), "not a socket")
      assert.strictEqual(file(path), before)
    })
  )

  // Node has none of these itself.
  it.live.each(["SOCK_DGRAM", "SOCK_SEQPACKET"])("a socket of another kind, %s, is an error that says so", (kind) =>
    Effect.gen(function* () {
      const path = yield* place
      const script = `use Socket; $| = 1; socket(S, AF_UNIX, ${kind}, 0) && bind(S, pack_sockaddr_un($ARGV[0])) or die; print "ready"; sleep`
      const other = yield* Program.start(path, { command: ["perl", "-e", script] })
      yield* other.printed(/ready/)
      const before = file(path)
      assert.strictEqual(yield* refused(path), "a socket of another kind is there")
      assert.strictEqual(file(path), before)
    })
  )

  it.live.each([
    { what: "a socket that nobody listens on", put: stale },
    { what: "a socket that somebody listens on", put: foreign }
  ])("a symbolic link to $what stays as it is, and so does that", ({ put }) =>
    Effect.gen(function* () {
      const path = yield* place
      yield* put(`${path}.real`)
      fs.symlinkSync(`${path}.real`, path)
      const before = [file(path), file(`${path}.real`)]
      assert.strictEqual(yield* refused(path), "not a socket")
      assert.deepStrictEqual([file(path), file(`${path}.real`)], before)
    })
  )

  it.live("a socket that may not be connected to stays as it is, and is an error that says so", () =>
    Effect.gen(function* () {
      const path = yield* place
      yield* foreign(path)
      fs.chmodSync(dirname(path), 0o777)
      fs.chmodSync(path, 0)
      const before = file(path)
      assert.strictEqual(yield* unprivileged(refused(path)), "permission denied")
      assert.strictEqual(file(path), before)
    })
  )
})

describe("the mode", () => {
  it.live.each(["600", "666", "770", "0"])("0%s is in force before anybody can connect", (octal) =>
    Effect.gen(function* () {
      const path = yield* place
      for (const call of ["linkSync", "renameSync"] as const) {
        const seen: Array<string> = []
        yield* Effect.scoped(
          Effect.gen(function* () {
            yield* instead(call, (original) => (from, to) => {
              assert.strictEqual(mode(dirname(String(from))), "700")
              seen.push(mode(String(from)))
              original(from, to)
              seen.push(mode(String(to)))
            })
            if (call === "renameSync") yield* stale(path)
            yield* ours(path, { mode: Number.parseInt(octal, 8) })
            seen.push(mode(path))
          })
        )
        assert.deepStrictEqual(seen, [octal, octal, octal])
      }
    })
  )

  it.live("0600 keeps out everybody else, and 0666 nobody", () =>
    Effect.gen(function* () {
      // Only root is somebody else than this process.
      const path = yield* place
      fs.chmodSync(dirname(path), 0o755)
      const asked = (given: number) =>
        Effect.scoped(Effect.andThen(ours(path, { mode: given }), unprivileged(ask(path))))
      assert.strictEqual(yield* asked(0o666), "ours")
      assert.strictEqual(yield* asked(process.geteuid!() === 0 ? 0o600 : 0o000), "EACCES")
    })
  )

  it.live("is what Node makes it where none is given", () =>
    Effect.gen(function* () {
      const path = yield* place
      const umask = process.umask(0o027)
      yield* Effect.addFinalizer(() => Effect.sync(() => process.umask(umask)))
      const all: ReadonlyArray<Bind.Options> = [{}, { readableAll: true }, { readableAll: true, writableAll: true }]
      const modes = new Set<string>()
      for (const options of all) {
        const given = yield* Effect.scoped(Effect.map(ours(path, options), () => mode(path)))
        assert.strictEqual(yield* Effect.scoped(Effect.map(foreign(path, options), () => mode(path))), given)
        modes.add(given)
      }
      assert.strictEqual(modes.size, 3)
      yield* ours(path, { readableAll: true, mode: 0o600 })
      assert.strictEqual(mode(path), "600")
    })
  )

  it.each([undefined, 0, 0o600, 0o777])("%o can be meant", (given) => {
    assert.deepStrictEqual(decodeMode(given), Result.succeed(given))
  })

  it.each([
    [0o1777, "1023: 0o1777 is not from 0 to 0o777"],
    [666, "666: 0o1232 is not from 0 to 0o777"],
    [-1, "-1: not from 0 to 0o777"],
    [1.5, "1.5: not from 0 to 0o777"],
    [Number.NaN, "NaN: not from 0 to 0o777"],
    ["600" as unknown as number, '"600": not from 0 to 0o777']
  ])("%o is an error that names the option", (given, says) => {
    const error = Result.getOrThrow(Result.flip(decodeMode(given)))
    assert.strictEqual(error.message, `Option mode is ${says}`)
  })
})

describe("when it stops", () => {
  it.live("its file goes at once, and nobody is accepted any more", () =>
    Effect.gen(function* () {
      const path = yield* place
      const bound = yield* ours(path)
      bound.stop()
      assert.isFalse(bound.server.listening)
      assert.deepStrictEqual(beside(path), [])
      assert.strictEqual(yield* ask(path), "ENOENT")
    })
  )

  it.live("what it has accepted goes on", () =>
    Effect.gen(function* () {
      const path = yield* place
      const self = yield* Effect.acquireRelease(
        Effect.sync(() => createServer()),
        (self) => Effect.sync(() => void self.close())
      )
      const bound = yield* Bind.listen(self, { path })
      const accepted = yield* Effect.forkChild(
        Effect.callback<Socket>((resume) => void self.once("connection", (socket) => resume(Effect.succeed(socket)))),
        { startImmediately: true }
      )
      const peer = yield* connected(path)
      const socket = yield* Fiber.join(accepted)
      bound.stop()
      socket.end("later")
      const text = yield* Effect.callback<string>(
        (resume) => void peer.on("data", (chunk) => resume(Effect.succeed(String(chunk))))
      )
      assert.strictEqual(text, "later")
    })
  )

  it.live("its file has gone before its server closes, so that nobody takes it for one to be replaced", () =>
    Effect.gen(function* () {
      const path = yield* place
      const bound = yield* ours(path)
      const listening: Array<boolean> = []
      yield* instead("unlinkSync", (original) => (target) => {
        listening.push(bound.server.listening)
        original(target)
      })
      bound.stop()
      assert.deepStrictEqual(listening, [true])
    })
  )

  it.live("a file that has gone already is nobody's trouble", () =>
    Effect.gen(function* () {
      const path = yield* place
      const bound = yield* ours(path)
      fs.unlinkSync(path)
      bound.stop()
      assert.isFalse(bound.server.listening)
    })
  )

  it.live("a file that may not be removed any more is left for the next to replace", () =>
    Effect.gen(function* () {
      const path = yield* place
      const bound = yield* ours(path)
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* instead("unlinkSync", () => () => {
            throw errno("EACCES")
          })
          bound.stop()
        })
      )
      assert.isFalse(bound.server.listening)
      yield* ours(path, {}, "next")
      assert.strictEqual(yield* ask(path), "next")
    })
  )

  it.live.each(["stops", "closes by itself"])(
    "the socket that somebody else has put there keeps answering when it %s",
    (way) =>
      Effect.gen(function* () {
        const path = yield* place
        const bound = yield* ours(path)
        fs.unlinkSync(path)
        yield* foreign(path)
        const before = file(path)
        if (way === "stops") bound.stop()
        else bound.server.close()
        yield* closed(bound.server)
        bound.stop()
        assert.strictEqual(file(path), before)
        assert.strictEqual(yield* ask(path), "foreign")
      })
  )

  it.live("another file that somebody else has put there stays, also if it is as old", () =>
    Effect.gen(function* () {
      const path = yield* place
      const bound = yield* ours(path)
      fs.writeFileSync(`${path}.text`, "text")
      assert.strictEqual(spawnSync("touch", ["-r", path, `${path}.text`]).status, 0)
      fs.renameSync(`${path}.text`, path)
      bound.stop()
      assert.strictEqual(fs.readFileSync(path, "utf8"), "text")
    })
  )

  it.live("the socket of somebody else stays also where the system gives it the same number", () =>
    Effect.gen(function* () {
      const path = yield* place
      const bound = yield* ours(path)
      const { ino } = fs.lstatSync(path)
      // Whoever closes the server by itself lets go of the file while a connection still keeps it from saying so.
      const accepted = yield* Effect.forkChild(
        Effect.callback<void>((resume) => void bound.server.once("connection", () => resume(Effect.void))),
        { startImmediately: true }
      )
      yield* connected(path)
      yield* Fiber.join(accepted)
      bound.server.close()
      fs.unlinkSync(path)
      // A file system may count time in ticks of some milliseconds.
      yield* Effect.sleep(20)
      // Most file systems give the number that became free last; some never give one again.
      for (let other = 0; other < 100; other++) {
        yield* foreign(path)
        if (fs.lstatSync(path).ino === ino || other === 99) break
        fs.renameSync(path, `${path}.${other}`)
      }
      const before = file(path)
      bound.stop()
      assert.strictEqual(file(path), before)
    })
  )

  it.live("its file goes also where somebody closes the server by itself", () =>
    Effect.gen(function* () {
      const path = yield* place
      const bound = yield* ours(path)
      bound.server.close()
      yield* closed(bound.server)
      assert.deepStrictEqual(beside(path), [])
    })
  )
})

describe("an abstract socket", () => {
  const name = `kms-${process.pid}`

  it.live("is listened on, and shown with an @", () =>
    Effect.gen(function* () {
      const bound = yield* ours(`\0${name}`)
      assert.strictEqual(bound.address, `@${name}`)
      assert.strictEqual(yield* ask(`\0${name}`), "ours")
      const lines = fs.readFileSync("/proc/net/unix", "latin1").split("\n")
      assert.isTrue(lines.some((line) => line.endsWith(` @${name}`)))
      const error = yield* Effect.flip(ours(`\0${name}`))
      assert.strictEqual(error.message, `Cannot listen on @${name}: the address is in use`)
      bound.stop()
      assert.strictEqual(yield* ask(`\0${name}`), "ECONNREFUSED")
    })
  )

  it.live("has at most 108 bytes, and is not cut", () =>
    Effect.gen(function* () {
      const longest = `\0${name}`.padEnd(108, "x")
      yield* ours(longest)
      assert.strictEqual(yield* ask(longest), "ours")
      const error = yield* Effect.flip(ours(`${longest}y`))
      assert.strictEqual(error.message, `Cannot listen on @${longest.slice(1)}y: the path is too long`)
    })
  )

  it.live("has no file, and so no mode", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(ours(`\0${name}`, { mode: 0o600 }))
      assert.match(error.message, /^Cannot listen on @.*: this process makes no file there that could have a mode$/)
    })
  )

  it.live("is an error elsewhere than on Linux", () =>
    Effect.gen(function* () {
      const platform = Object.getOwnPropertyDescriptor(process, "platform")!
      yield* Effect.addFinalizer(() => Effect.sync(() => Object.defineProperty(process, "platform", platform)))
      for (const value of ["darwin", "win32"]) {
        Object.defineProperty(process, "platform", { ...platform, value })
        const error = yield* Effect.flip(ours(`\0${name}`))
        assert.strictEqual(error.message, `Cannot listen on @${name}: only Linux has abstract sockets`)
      }
    })
  )
})

describe("where it fails half-way", () => {
  it.live.each(["chmodSync", "renameSync"] as const)("in %s nothing listens, and nothing is left", (call) =>
    Effect.gen(function* () {
      const path = yield* place
      yield* stale(path)
      const before = file(path)
      yield* instead(call, () => () => {
        throw errno("EPERM")
      })
      assert.strictEqual(yield* refused(path, { mode: 0o600 }), "permission denied")
      assert.strictEqual(file(path), before)
    })
  )

  it.live("a server that listens already goes on where it is", () =>
    Effect.gen(function* () {
      const path = yield* place
      const bound = yield* ours(path)
      const error = yield* Effect.flip(Bind.listen(bound.server, { path: `${path}.other` }))
      assert.strictEqual(error.code, "ERR_SERVER_ALREADY_LISTEN")
      assert.deepStrictEqual(beside(path), ["app.sock"])
      assert.strictEqual(bound.server.address(), path)
      assert.strictEqual(yield* ask(path), "ours")
    })
  )

  it.live("what Node makes of the other options is told, and nothing is left", () =>
    Effect.gen(function* () {
      const path = yield* place
      const message = yield* refused(path, { signal: "none" as unknown as AbortSignal })
      assert.match(message, /signal/)
    })
  )

  it.live.each(["linkSync", "renameSync"] as const)(
    "interrupted in the moment in which it is bound, in %s, nothing listens, and nothing is left",
    (call) =>
      Effect.gen(function* () {
        const path = yield* place
        if (call === "renameSync") yield* stale(path)
        const self = yield* server("interrupted")
        let listened = false
        self.on("listening", () => void (listened = true))
        let inPlace = false
        yield* instead(call, (original) => (from, to) => {
          original(from, to)
          inPlace = true
          fiber.interruptUnsafe()
        })
        const fiber: Fiber.Fiber<unknown, unknown> = yield* Effect.forkChild(Bind.listen(self, { path }))
        assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(fiber)))
        assert.isTrue(inPlace)
        assert.isFalse(self.listening)
        assert.deepStrictEqual(beside(path), [])
        yield* turn
        assert.isFalse(listened)
      })
  )

  it.live("interrupted right after it is bound, nothing listens, and nothing is left", () =>
    Effect.gen(function* () {
      const path = yield* place
      const self = yield* server("interrupted")
      const fiber = yield* Effect.forkChild(Bind.listen(self, { path }), { startImmediately: true })
      // Its `listening` has not come yet.
      assert.isTrue(self.listening)
      fiber.interruptUnsafe()
      assert.isFalse(self.listening)
      assert.deepStrictEqual(beside(path), [])
      yield* turn
      assert.deepStrictEqual(beside(path), [])
    })
  )

  it.live("interrupted while it looks who is there, all stays as it was", () =>
    Effect.gen(function* () {
      const path = yield* place
      yield* stale(path)
      const before = file(path)
      const self = yield* server("interrupted")
      const fiber = yield* Effect.forkChild(Bind.listen(self, { path }), { startImmediately: true })
      yield* Fiber.interrupt(fiber)
      yield* turn
      assert.isFalse(self.listening)
      assert.strictEqual(file(path), before)
      assert.deepStrictEqual(beside(path), ["app.sock"])
    })
  )
})

describe("a lock", () => {
  const lockOf = (path: string) => join(dirname(path), `.${basename(path)}.lock`)

  // Under a clock that nobody moves: it is other processes that are waited for.
  it.effect("of another process is waited for, on the real clock", () =>
    Effect.gen(function* () {
      const path = yield* place
      yield* stale(path)
      fs.writeFileSync(lockOf(path), "")
      const locked = file(lockOf(path))
      const before = file(path)
      let looks = 0
      yield* instead("openSync", (original) => (...args) => {
        if (++looks === 5) {
          assert.strictEqual(file(lockOf(path)), locked)
          assert.strictEqual(file(path), before)
          fs.unlinkSync(lockOf(path))
        }
        return original(...args)
      })
      yield* ours(path)
      assert.strictEqual(looks, 5)
      assert.strictEqual(yield* ask(path), "ours")
      assert.deepStrictEqual(beside(path), ["app.sock"])
    })
  )

  it.live("whose owner has died is removed after a few seconds", () =>
    Effect.gen(function* () {
      const path = yield* place
      fs.writeFileSync(lockOf(path), "")
      const begin = performance.now()
      yield* ours(path)
      assert.isAbove(performance.now() - begin, 2000)
      assert.strictEqual(yield* ask(path), "ours")
      assert.deepStrictEqual(beside(path), ["app.sock"])
    })
  )

  it.live("that others take all the time is not removed, and an error in the end", () =>
    Effect.gen(function* () {
      const path = yield* place
      const take = () => fs.writeFileSync(lockOf(path), "")
      yield* instead("openSync", (original) => (...args) => {
        if (args[0] === lockOf(path)) {
          // Always there, and always another one.
          fs.unlinkSync(lockOf(path))
          original(...args)
        }
        return original(...args)
      })
      take()
      assert.strictEqual(yield* refused(path), "others start and stop there all the time")
      assert.deepStrictEqual(beside(path).length, 1)
    })
  )

  it.live("that was lost to somebody is not removed, and nothing is replaced", () =>
    Effect.gen(function* () {
      const path = yield* place
      yield* stale(path)
      const before = file(path)
      let times = 0
      yield* instead("chmodSync", (original) => (target, given) => {
        // Taken for dead, while it was not.
        if (times++ === 0) {
          fs.unlinkSync(lockOf(path))
          fs.writeFileSync(lockOf(path), "")
        } else {
          assert.fail("It has gone on with the lock of somebody else")
        }
        original(target, given)
      })
      const self = yield* server("ours")
      const fiber = yield* Effect.forkChild(Bind.listen(self, { path, mode: 0o600 }), { startImmediately: true })
      yield* Effect.callback<void>((resume) => {
        const look = () => (times === 1 ? resume(Effect.void) : setImmediate(look))
        look()
      })
      const locked = file(lockOf(path))
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(file(path), before)
      assert.strictEqual(file(lockOf(path)), locked)
      fs.unlinkSync(lockOf(path))
      assert.deepStrictEqual(beside(path), ["app.sock"])
    })
  )

  it.live("that is met and interrupted stays with its owner", () =>
    Effect.gen(function* () {
      const path = yield* place
      fs.writeFileSync(lockOf(path), "")
      const locked = file(lockOf(path))
      const self = yield* server("interrupted")
      const fiber = yield* Effect.forkChild(Bind.listen(self, { path }), { startImmediately: true })
      yield* turn
      yield* Fiber.interrupt(fiber)
      assert.isFalse(self.listening)
      assert.strictEqual(file(lockOf(path)), locked)
      assert.strictEqual(beside(path).length, 1)
    })
  )
})

describe("processes that want one path", () => {
  it.live.each([
    { what: "where nothing is", prepare: () => Effect.void },
    { what: "with a socket that nobody listens on", prepare: stale }
  ])(
    "at the same moment, $what: one gets it and answers, the others are told that it is in use",
    ({ prepare }) =>
      Effect.gen(function* () {
        const at = yield* directory
        const prefix = join(at, "s")
        const processes = yield* Effect.all(
          Array.from({ length: 8 }, () => contender(prefix)),
          { concurrency: "unbounded" }
        )
        const rounds = 30
        for (let round = 0; round < rounds; round++) {
          const path = `${prefix}${round}`
          yield* prepare(path)
          const came = yield* Effect.forEach(
            processes,
            (each) => Effect.map(begin(each, path), (text) => ({ text, pid: String(each.pid) })),
            { concurrency: "unbounded" }
          )
          const winners = came.filter(({ text }) => text === "won")
          assert.strictEqual(winners.length, 1, JSON.stringify(came))
          assert.deepStrictEqual(
            came.filter((each) => each !== winners[0]).map(({ text }) => text),
            Array.from({ length: 7 }, () => `Cannot listen on ${path}: the address is in use`)
          )
          assert.strictEqual(yield* ask(path), winners[0]!.pid)
        }
        assert.deepStrictEqual(fs.readdirSync(at).sort(), Array.from({ length: rounds }, (_, i) => `s${i}`).sort())
      }),
    60_000
  )

  it.live.each([
    { what: "came first", prepare: () => Effect.void },
    { what: "replaced the same socket", prepare: stale }
  ])("one that has looked before another $what leaves that one alone", ({ prepare }) =>
    Effect.gen(function* () {
      const path = yield* place
      yield* prepare(path)
      yield* ours(`${path}.made`, {}, "winner")
      // A process takes its lock after its first look.
      let looks = 0
      yield* instead("openSync", (original) => (...args) => {
        if (looks++ === 0) fs.renameSync(`${path}.made`, path)
        return original(...args)
      })
      let made = 0
      yield* instead("mkdtempSync", (original) => (...args) => {
        made++
        return original(...args)
      })
      const error = yield* Effect.flip(ours(path))
      assert.strictEqual(error.code, "EADDRINUSE")
      assert.strictEqual(looks, 1)
      // It has looked again before it bound anything.
      assert.strictEqual(made, 0)
      assert.strictEqual(yield* ask(path), "winner")
      assert.deepStrictEqual(beside(path), ["app.sock"])
    })
  )

  it.live("one that knows no lock, and comes in the last moment, is left alone", () =>
    Effect.gen(function* () {
      const path = yield* place
      yield* instead("linkSync", (original) => (from, to) => {
        fs.writeFileSync(to, "text", { flag: "wx" })
        original(from, to)
      })
      const self = yield* server("ours")
      const error = yield* Effect.flip(Bind.listen(self, { path }))
      assert.strictEqual(error.code, "ENOTSOCK")
      assert.isFalse(self.listening)
      assert.strictEqual(fs.readFileSync(path, "utf8"), "text")
      assert.deepStrictEqual(beside(path), ["app.sock"])
    })
  )

  it.live("one that knows no lock, and replaces a socket meanwhile, is left alone", () =>
    Effect.gen(function* () {
      const path = yield* place
      yield* stale(path)
      yield* instead("chmodSync", (original) => (target, given) => {
        fs.unlinkSync(path)
        fs.writeFileSync(path, "text")
        original(target, given)
      })
      const self = yield* server("ours")
      const error = yield* Effect.flip(Bind.listen(self, { path, mode: 0o600 }))
      assert.strictEqual(error.code, "ENOTSOCK")
      assert.isFalse(self.listening)
      assert.strictEqual(fs.readFileSync(path, "utf8"), "text")
      assert.deepStrictEqual(beside(path), ["app.sock"])
    })
  )

  it.live("in a cluster have it from their primary, who keeps the file", () =>
    Effect.gen(function* () {
      const shared = yield* place
      const own = `${shared}.own`
      const crowd = yield* Program.start(Program.beside(import.meta.url, "support/crowd.ts"), { args: [shared, own] })
      const made = `Cannot listen on ${shared}: this process makes no file there that could have a mode`
      for (const id of [1, 2]) {
        yield* crowd.printed(new RegExp(`${id}: ${made}`))
        yield* crowd.printed(new RegExp(`${id}: listens`))
      }
      for (const id of [1, 2]) {
        assert.strictEqual(yield* ask(shared), "worker")
        yield* crowd.kill("SIGUSR2")
        yield* crowd.printed(new RegExp(`${id}: has a path of its own: true`))
        yield* crowd.printed(new RegExp(`${id}: stopped: false`))
      }
      assert.strictEqual((yield* crowd.ended).code, 0)
    })
  )
})

const turn = Effect.callback<void>((resume) => void setImmediate(() => setImmediate(() => resume(Effect.void))))

/** A process that listens on `<prefix><round>` when it is told to. */
const contender = Effect.fnUntraced(function* (prefix: string) {
  const program = yield* Program.start(Program.beside(import.meta.url, "support/contender.ts"), { args: [prefix] })
  yield* program.printed(/ready/)
  return program
})

/** Tells it to, and waits for what came of it. */
const begin = Effect.fnUntraced(function* (program: Program.Program, path: string) {
  yield* program.kill("SIGUSR2")
  const [, came] = yield* program.printed(new RegExp(`^${path}: (.*)$`, "m"))
  return came!
})
