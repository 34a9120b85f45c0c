// swift-tools-version: 6.2
import PackageDescription

/// Every Swift target: Swift 6 mode, imports that stay private unless written otherwise, and no
/// warning that survives a build.
let strict: [SwiftSetting] = [
  .swiftLanguageMode(.v6),
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("InternalImportsByDefault"),
  .enableUpcomingFeature("MemberImportVisibility"),
  .treatAllWarnings(as: .error),
]
let strictC: [CSetting] = [
  .enableWarning("all"), .enableWarning("extra"), .treatAllWarnings(as: .error),
]

let package = Package(
  name: "memdump",
  products: [
    .executable(name: "memdump", targets: ["memdump"]),
    .library(name: "Memdump", targets: ["Predump", "Images"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/apple/swift-system", from: "1.8.1"),
  ],
  targets: [
    // C: system calls Swift cannot import, and the image records' generated code.
    .target(name: "CLinux", cSettings: strictC),
    .systemLibrary(name: "CLZ4", pkgConfig: "liblz4", providers: [.apt(["liblz4-dev"])]),
    .systemLibrary(name: "CXXHash", pkgConfig: "libxxhash", providers: [.apt(["libxxhash-dev"])]),
    // XXH3 with AVX2 where the processor has it.
    .target(name: "CDigest", dependencies: ["CXXHash"], cSettings: strictC),
    .systemLibrary(
      name: "CProtobufC", pkgConfig: "libprotobuf-c", providers: [.apt(["libprotobuf-c-dev"])]),
    .systemLibrary(name: "COpenSSL", pkgConfig: "openssl", providers: [.apt(["libssl-dev"])]),
    .target(name: "CTLS", dependencies: ["COpenSSL"], cSettings: strictC),
    .target(name: "CCRIUImages", dependencies: ["CProtobufC"]),

    // Arrows point down only: memdump -> Migration -> Predump -> Tracee, Images -> Kernel.
    .target(
      name: "Kernel",
      dependencies: [
        "CLinux", "COpenSSL", "CTLS", .product(name: "SystemPackage", package: "swift-system"),
      ],
      swiftSettings: strict),
    .target(name: "Tracee", dependencies: ["CLinux", "Kernel"], swiftSettings: strict),
    .target(
      name: "Images",
      dependencies: [
        "Kernel", "CCRIUImages", "CDigest", "CLZ4", "CXXHash",
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      swiftSettings: strict),
    .target(
      name: "Predump",
      dependencies: [
        "Kernel", "Tracee", "Images", .product(name: "SystemPackage", package: "swift-system"),
      ], swiftSettings: strict),
    .target(
      name: "Migration",
      dependencies: [
        "Kernel", "Images", "Predump",
        .product(name: "SystemPackage", package: "swift-system"),
      ], swiftSettings: strict),
    .executableTarget(
      name: "memdump",
      dependencies: [
        "Migration", "Predump", "Images", "Tracee", "Kernel",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "SystemPackage", package: "swift-system"),
      ], swiftSettings: strict),

    // Programs that the tests dump.
    .executableTarget(name: "workload", path: "Tests/Workloads", cSettings: strictC),
    // Inner loops and bare limits; scripts/bench.sh runs it.
    .target(name: "CMallocCount", path: "Tests/CMallocCount", cSettings: strictC),
    .executableTarget(
      name: "benchmarks",
      dependencies: ["CLinux", "CLZ4", "CMallocCount", "Kernel", "Tracee", "Images"],
      path: "Tests/Benchmarks", swiftSettings: strict),
    .target(name: "CTestSupport", path: "Tests/CTestSupport", cSettings: strictC),
    .target(name: "TestSupport", path: "Tests/TestSupport", swiftSettings: strict),
    .testTarget(
      name: "KernelTests", dependencies: ["Kernel", "TestSupport", "workload"],
      swiftSettings: strict),
    .testTarget(
      name: "TraceeTests", dependencies: ["Tracee", "Kernel", "TestSupport", "workload"],
      swiftSettings: strict),
    // Arbitrary bytes as images, for scripts/fuzz.sh and for a test.
    .target(
      name: "ImageFuzzing", dependencies: ["Images", "Kernel", "CXXHash"], path: "Tests/ImageFuzzing",
      swiftSettings: strict),
    .testTarget(
      name: "ImagesTests", dependencies: ["Images", "ImageFuzzing", "Kernel", "CCRIUImages", "CDigest"],
      swiftSettings: strict),
    .testTarget(
      name: "PredumpTests",
      dependencies: [
        "Predump", "Images", "Kernel", "TestSupport", "CTestSupport", "workload", "memdump",
      ],
      swiftSettings: strict),
    .testTarget(
      name: "MigrationTests",
      dependencies: [
        "Migration", "Predump", "Images", "Kernel", "TestSupport", "workload", "memdump",
      ],
      swiftSettings: strict),
    .testTarget(
      name: "CommandTests", dependencies: ["memdump", "Kernel", "TestSupport", "workload"],
      swiftSettings: strict),
  ]
)

// libFuzzer comes with the compiler, but only a build that asks for it links: scripts/fuzz.sh.
if Context.environment["MEMDUMP_FUZZ"] != nil {
  package.targets += [
    .systemLibrary(name: "CFuzzer", path: "Tests/CFuzzer"),
    .executableTarget(
      name: "fuzz", dependencies: ["CFuzzer", "ImageFuzzing"], path: "Tests/Fuzz",
      swiftSettings: strict),
  ]
}
