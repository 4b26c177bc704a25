/**
 * Builds the library into `dist`: declarations file by file, code in a few. To start, Node takes half a millisecond a file,
 * and a program that imports `effect-kms/Kms` and `effect-kms/KmsHttp` would load more than forty.
 */
import { execFileSync } from "node:child_process"
import { globSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { resolve } from "node:path"
import { build } from "rolldown"

/** All that nearly every program loads, in one file. What only some do stays with its module. */
const core = new Set<string>()
const reach = (file: string): void => {
  if (core.has(file)) return
  core.add(file)
  for (const [, path] of readFileSync(file, "utf8").matchAll(/^(?:import|export) (?!type )[^"]*from "(\.[^"]*)"/gm)) {
    reach(resolve(file, "..", path!))
  }
}
for (const name of ["Kms", "KmsHttp"]) reach(resolve(`src/${name}.ts`))

rmSync("dist", { recursive: true, force: true })
execFileSync("tsc", ["--project", "tsconfig.build.json"], { stdio: "inherit" })
await build({
  input: globSync("src/Kms*.ts"),
  external: /^[^./]/,
  platform: "node",
  tsconfig: "tsconfig.json",
  output: {
    dir: "dist",
    format: "esm",
    sourcemap: true,
    // They are published themselves.
    sourcemapExcludeSources: true,
    // Those for whoever reads are in the declarations.
    comments: { annotation: true, jsdoc: false, legal: false },
    // Nobody can import what is in there.
    chunkFileNames: "internal/[name]-[hash].js",
    codeSplitting: { groups: [{ name: "core", test: (id) => core.has(id) }] }
  },
  logLevel: "warn"
})
// It only names the others, and has to do so file by file: their namespaces would be made anew in each bundle.
writeFileSync("dist/index.js", readFileSync("src/index.ts", "utf8").replaceAll('.ts"', '.js"'))
