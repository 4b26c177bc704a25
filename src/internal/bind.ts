/**
 * Listening: the one place where a server is bound, with errors that name the address. Where it fails, or is interrupted,
 * nothing is left open and no file is left behind.
 */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import cluster from "node:cluster"
import { existsSync } from "node:fs"
import { type AddressInfo, type ListenOptions, Server as NetServer, type Server } from "node:net"
import { dirname } from "node:path"
import * as Unix from "./unix.ts"

/** An address that cannot be listened on. */
export class BindError extends Data.TaggedError("BindError")<{
  readonly address: string
  readonly code: string
  readonly cause: unknown
}> {
  override get message(): string {
    return `Cannot listen on ${this.address}: ${problems[this.code] ?? (this.cause as Error).message}`
  }
}

/** Those that no system call has: `EABSTRACT`, `ENOMODE`. */
const problems: Record<string, string> = {
  EABSTRACT: "only Linux has abstract sockets",
  EACCES: "permission denied",
  EADDRINUSE: "the address is in use",
  EADDRNOTAVAIL: "this machine has no such address",
  EAGAIN: "others start and stop there all the time",
  EBADF: "there is no such descriptor",
  EINVAL: "not a socket that can be listened on",
  ENAMETOOLONG: "the path is too long",
  ENOENT: "there is no such directory",
  ENOMODE: "this process makes no file there that could have a mode",
  ENOTDIR: "a part of the path is not a directory",
  ENOTSOCK: "not a socket",
  EPERM: "permission denied",
  EPROTOTYPE: "a socket of another kind is there",
  EROFS: "the file system is read-only",
  ERR_INVALID_FD_TYPE: "not a socket"
}

/** What to listen on, as Node has it, and the mode of the file of a Unix socket. */
export type Options = ListenOptions & {
  readonly fd?: number | undefined
  readonly mode?: number | undefined
  /** That of a file that this process makes, where none is given. */
  readonly defaultMode?: number | undefined
}

/** A server that listens. */
export interface Bound {
  /** What it listens on, in words. */
  readonly address: string
  /** Stops accepting, and removes the file of a Unix socket if it is still its own. Whatever was accepted goes on. */
  readonly stop: () => void
}

/** The code of what went wrong. */
const codeOf = (cause: unknown, options: Options): string => {
  const { code } = cause as { readonly code?: string }
  const path = pathOf(options)
  if (code !== "EACCES" || path === undefined || ownsFile(path, options)) return code ?? ""
  // libuv calls a missing directory EACCES, too.
  return existsSync(dirname(path)) ? code : "ENOENT"
}

/** A path in words: that of an abstract socket as `ss` and others show it. */
const shown = (path: string): string => (Unix.isAbstract(path) ? `@${path.slice(1)}` : path)

/** What `options` ask to listen on, in words. */
export const describe = (options: Options): string => {
  if (options.fd !== undefined) return `descriptor ${options.fd}`
  // Node takes a port over a path.
  if (options.path !== undefined && options.port === undefined) return options.path === "" ? '""' : shown(options.path)
  return `${options.host ?? ""}:${options.port ?? 0}`
}

/** What a bound server listens on, in words. */
export const bound = (server: Server, options: Options): string => {
  const address = server.address() as AddressInfo | string | null
  if (typeof address === "string") return shown(address)
  return address === null || address === undefined ? describe(options) : `:${address.port}`
}

/** Binds `server`. */
export const listen = (server: Server, options: Options): Effect.Effect<Bound, BindError> =>
  Effect.suspend(() => bind(server, options)).pipe(
    Effect.mapError((cause) => new BindError({ address: describe(options), code: codeOf(cause, options), cause })),
    Effect.map((file) => ({
      address: bound(server, options),
      stop: () => {
        file?.remove()
        // Not by `http.Server.close`, which destroys responses on their way (nodejs/node#60617).
        if (server.listening) NetServer.prototype.close.call(server)
      }
    }))
  )

const bind = (server: Server, options: Options): Effect.Effect<Unix.SocketFile | undefined, unknown> => {
  const path = pathOf(options)
  const problem = path === undefined ? undefined : Unix.misnamed(path)
  if (options.path === "" && options.port === undefined && options.fd === undefined) {
    return Effect.fail(Unix.problem("ENOPATH", "the path is empty"))
  }
  if (problem !== undefined) return Effect.fail(problem)
  // Node would close the server before it says that it listens, and say nothing.
  if (options.signal?.aborted === true) return Effect.fail(Unix.problem("ABORT_ERR", "its signal has been aborted"))
  if (path !== undefined && ownsFile(path, options)) {
    return Unix.make(path, (place) =>
      listening(server, () => place(options.mode ?? options.defaultMode, (name) => listenAt(server, options, name)))
    )
  }
  if (options.mode !== undefined) return Effect.fail(Unix.problem("ENOMODE", "there is no file that could have a mode"))
  // For a descriptor Node takes the backlog only from here, and would give a queue of systemd's its own, shorter one.
  return listening(server, () => void server.listen(options, options.backlog))
}

/** The path of a Unix socket, if that is what to listen on. Windows has named pipes instead, and they are not files. */
const pathOf = ({ fd, path, port }: Options): string | undefined => {
  if (typeof path !== "string" || path === "" || fd !== undefined || port !== undefined) return undefined
  return process.platform === "win32" && !Unix.isAbstract(path) ? undefined : path
}

/** Whether it is for this process to make the file. In a cluster the primary does, which binds for its workers. */
const ownsFile = (path: string, { exclusive }: Options): boolean =>
  !Unix.isAbstract(path) && (!cluster.isWorker || exclusive === true)

const listenAt = (server: Server, options: Options, name: string): boolean => {
  // An option `port` that is there and undefined means any port to Node.
  const { path, port: _, ...rest } = options
  server.listen({ ...rest, path: name })
  if (!server.listening) return false
  const address = server.address.bind(server)
  server.address = () => {
    const at = address()
    return at === name ? path! : at
  }
  return true
}

/** Waits until `server` listens, as `begin` tells it to. */
const listening = (
  server: Server,
  begin: () => Unix.SocketFile | undefined
): Effect.Effect<Unix.SocketFile | undefined, unknown> =>
  Effect.callback((resume) => {
    let file: Unix.SocketFile | undefined
    const onListening = () => {
      server.off("error", onError)
      resume(Effect.succeed(file))
    }
    const onError = (cause: Error) => {
      server.off("listening", onListening)
      resume(Effect.fail(cause))
    }
    const wasListening = server.listening
    server.once("error", onError)
    server.once("listening", onListening)
    try {
      file = begin()
    } catch (cause) {
      // A port out of range or options that make no sense throw at once, and so does a file that cannot be put in place.
      server.off("error", onError)
      server.off("listening", onListening)
      if (server.listening && !wasListening) NetServer.prototype.close.call(server)
      return resume(Effect.fail(cause))
    }
    // Someone else may close it.
    if (file !== undefined) server.once("close", file.remove)
    return Effect.sync(() => {
      server.off("error", onError)
      server.off("listening", onListening)
      // Interrupted on the way: whether it is bound already or still will be, it is not to stay so.
      server.once("error", () => {})
      server.once("listening", () => server.close())
      file?.remove()
      server.close()
    })
  })
