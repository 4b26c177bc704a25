/**
 * Listening: the one place where a server is bound, with errors that name the address.
 */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import { existsSync } from "node:fs"
import type { AddressInfo, ListenOptions, Server } from "node:net"
import { dirname } from "node:path"

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

const problems: Record<string, string> = {
  EADDRINUSE: "the address is in use",
  EADDRNOTAVAIL: "this machine has no such address",
  EACCES: "permission denied",
  EPERM: "permission denied",
  ENOENT: "there is no such directory",
  ENOTDIR: "a part of the path is not a directory",
  ENAMETOOLONG: "the path is too long",
  EBADF: "there is no such descriptor",
  EINVAL: "not a socket that can be listened on",
  ENOTSOCK: "not a socket",
  ERR_INVALID_FD_TYPE: "not a socket"
}

/** Bytes in the path of a Unix socket. Windows has named pipes instead. */
const maxPath = process.platform === "linux" ? 107 : process.platform === "win32" ? Number.POSITIVE_INFINITY : 103

/** The code of what went wrong. */
const codeOf = (cause: unknown, { path }: ListenOptions): string => {
  const { code } = cause as { readonly code?: string }
  // libuv calls a missing directory EACCES.
  return code === "EACCES" && path !== undefined && !existsSync(dirname(path)) ? "ENOENT" : (code ?? "")
}

/** What `options` ask to listen on, in words. */
export const describe = (options: ListenOptions & { readonly fd?: number | undefined }): string => {
  if (options.fd !== undefined) return `descriptor ${options.fd}`
  if (options.path !== undefined) return options.path
  return `${options.host ?? ""}:${options.port ?? 0}`
}

/** What a bound server listens on, in words. */
export const bound = (server: Server, options: ListenOptions): string => {
  const address = server.address() as AddressInfo | string | null
  if (typeof address === "string") return address
  return address === null || address === undefined ? describe(options) : `:${address.port}`
}

/** Binds `server`. Where that fails nothing is left open. */
export const listen = (server: Server, options: ListenOptions): Effect.Effect<void, BindError> =>
  Effect.callback<void, BindError>((resume) => {
    const fail = (cause: unknown) => {
      resume(Effect.fail(new BindError({ address: describe(options), code: codeOf(cause, options), cause })))
    }
    // Node 22 cuts such a path off in silence, and listens somewhere else.
    if (typeof options.path === "string" && Buffer.byteLength(options.path) > maxPath) {
      return fail(Object.assign(new Error(`more than ${maxPath} bytes`), { code: "ENAMETOOLONG" }))
    }
    const onListening = () => {
      server.off("error", onError)
      resume(Effect.void)
    }
    const onError = (cause: Error) => {
      server.off("listening", onListening)
      fail(cause)
    }
    server.once("error", onError)
    server.once("listening", onListening)
    try {
      server.listen(options)
    } catch (cause) {
      // A port out of range or options that make no sense throw at once.
      server.off("error", onError)
      server.off("listening", onListening)
      fail(cause)
    }
    return Effect.sync(() => {
      server.off("error", onError)
      server.off("listening", onListening)
      // Interrupted on the way: whether it is bound already or still will be, it is not to stay so.
      server.once("error", () => {})
      server.once("listening", () => server.close())
      server.close()
    })
  })
