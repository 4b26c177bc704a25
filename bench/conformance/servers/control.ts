/**
 * Two servers that stop as badly as can be: `exits` is gone at the first signal, `stays` takes no notice of any. What
 * neither of them fails is no test: `npm run conformance -- --controls`.
 */
import { createServer, type RequestListener } from "node:http"
import { announce, attach, create, routes } from "./plain.ts"
import { began, settings } from "./settings.ts"

const end = process.argv[2] === "exits" ? () => process.exit(0) : () => {}

const listener: RequestListener = (request, response) => {
  if (request.url === "/job") {
    began("/job")
    response.end("accepted")
  } else routes(request, response)
}

for (const event of ["SIGTERM", "SIGINT", "SIGHUP", "uncaughtException", "unhandledRejection"]) process.on(event, end)

const listen = (name: string, port: number): void => {
  const server = create(listener)
  if (settings.mode.startsWith("http")) attach(server)
  announce(server, name)
  server.listen({ host: "127.0.0.1", port })
}

if (settings.second) listen("second", 0)
if (settings.lameDuck > 0) {
  const health = createServer((_request, response) => response.end("ok"))
  announce(health, "health")
  health.listen({ host: "127.0.0.1", port: 0 })
}
listen("port", settings.port)
