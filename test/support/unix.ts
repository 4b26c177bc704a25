/**
 * Unix sockets as others make them, and what is to be seen of them from outside.
 */
import { Effect, type Scope } from "effect"
import fs from "node:fs"
import { syncBuiltinESMExports } from "node:module"
import { connect, createServer, type ListenOptions, type Server } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"

/** A directory of the test's own. */
export const directory: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(join(tmpdir(), "kms-"))),
  (path) => Effect.sync(() => fs.rmSync(path, { recursive: true, force: true }))
)

/** A server that tells its name to whoever connects. It listens nowhere yet, and closes with the scope. */
export const server = (name: string): Effect.Effect<Server, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => createServer((socket) => void socket.on("error", () => {}).end(name))),
    (self) => Effect.sync(() => void self.close())
  )

/** A server of somebody who has never heard of this library. */
export const foreign = Effect.fnUntraced(function* (path: string, options: ListenOptions = {}) {
  const self = yield* server("foreign")
  yield* Effect.callback<void>((resume) => void self.listen({ path, ...options }, () => resume(Effect.void)))
  return self
})

/** A socket at `path` that its process has left behind. */
export const stale = Effect.fnUntraced(function* (path: string) {
  const name = `${path}.old`
  const self = yield* foreign(name)
  // Node removes the name that it was bound to, and no other.
  fs.linkSync(name, path)
  self.close()
}, Effect.scoped)

/** Who answers at `path`, or the code of why nobody does. */
export const ask = (path: string): Effect.Effect<string> =>
  Effect.callback((resume) => {
    let answer = ""
    const socket = connect({ path })
    socket.setEncoding("utf8").on("data", (chunk: string) => void (answer += chunk))
    socket.on("end", () => resume(Effect.succeed(answer)))
    socket.on("error", ({ code }: NodeJS.ErrnoException) => resume(Effect.succeed(String(code))))
    return Effect.sync(() => socket.destroy())
  })

/** Which file is at `path`, and what is in it. Equal as long as nobody touches it. */
export const file = (path: string): string => {
  const { birthtimeNs, ctimeNs, ino, mode, size } = fs.lstatSync(path, { bigint: true })
  return [birthtimeNs, ctimeNs, ino, mode, size].join(" ")
}

type Calls = "chmodSync" | "linkSync" | "lstatSync" | "mkdtempSync" | "openSync" | "renameSync" | "unlinkSync"

/** What `node:fs` does instead of one of its calls, as long as the scope is open. */
export const instead = <K extends Calls>(
  call: K,
  make: (original: (typeof fs)[K]) => (...args: Parameters<(typeof fs)[K]>) => unknown
): Effect.Effect<void, never, Scope.Scope> => {
  const replace = (by: unknown) => {
    Object.assign(fs, { [call]: by })
    syncBuiltinESMExports()
  }
  return Effect.asVoid(
    Effect.acquireRelease(
      Effect.sync(() => {
        const original = fs[call]
        replace(make(original))
        return original
      }),
      (original) => Effect.sync(() => replace(original))
    )
  )
}

/** The error that the system would give. */
export const errno = (code: string): Error => Object.assign(new Error(`${code}: made by a test`), { code })

/** Runs an effect as somebody who may not do everything, also where the tests run as root. */
export const unprivileged = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.acquireUseRelease(
    Effect.sync(() => process.geteuid!() === 0 && (process.seteuid!(65534), true)),
    () => self,
    (changed) => Effect.sync(() => void (changed && process.seteuid!(0)))
  )
