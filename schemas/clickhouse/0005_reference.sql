-- What is expected and what things are. The catalogue's tables are filled from the data files beside catalog.py by
-- `wattstream migrate`; emitters are registered by whoever sends (the simulator, an import).

CREATE TABLE IF NOT EXISTS emitters
(
    topic LowCardinality(String) COMMENT 'The topic it emits to, by its short name: power, utilization, links, …',
    site LowCardinality(String) COMMENT 'The campus or edge node; of a link its a end.',
    node LowCardinality(String) COMMENT 'The server; empty for a meter of the site.',
    emitter String COMMENT 'The meter, device or link.',
    interval_seconds UInt32 COMMENT 'How often it should be heard, s.',
    since DateTime('UTC') COMMENT 'From when it is expected.',
    until DateTime('UTC') COMMENT 'Until when it is expected; 2106-02-07 for no end.',
    maintenance Bool DEFAULT false COMMENT 'Excused: neither expected nor missed.',
    registered DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'The newest registration of an emitter and since counts.'
)
ENGINE = ReplacingMergeTree(registered)
ORDER BY (topic, site, node, emitter, since)
COMMENT 'Who is expected to be heard, how often, since when, until when.';

CREATE TABLE IF NOT EXISTS sites
(
    site String COMMENT 'The campus or edge node.',
    kind String COMMENT 'hub (a campus in a national cluster) or edge (at a base station).',
    name String COMMENT 'Display name, English.',
    name_zh String COMMENT 'Display name, Chinese.',
    hub String COMMENT 'The national hub it belongs to; of an edge node the one that its traffic goes to.',
    cluster String COMMENT 'The national data-centre cluster of a hub campus; empty for an edge node.',
    region String COMMENT 'The demand region it lies in.',
    province String COMMENT 'The province, English.',
    time_zone String COMMENT 'IANA name.',
    latitude Float64 COMMENT 'WGS 84, of the place, not of a building. Unit: deg.',
    longitude Float64 COMMENT 'WGS 84. Unit: deg.',
    utility_capacity_watts Int64 COMMENT 'What the utility feed can give (synthetic). Unit: W.',
    pue_target Float64 COMMENT 'Facility energy ÷ IT energy that it is planned for.',
    free_cooling_share Float64 COMMENT 'Share of the year cooled without compressors (synthetic, by climate).'
)
ENGINE = MergeTree
ORDER BY (site)
COMMENT 'Campuses and edge nodes. Filled from the catalogue by wattstream migrate.';

CREATE TABLE IF NOT EXISTS regions
(
    region String COMMENT 'The demand region: a province of the east, or several of the rest.',
    name String COMMENT 'Display name, English.',
    name_zh String COMMENT 'Display name, Chinese.',
    area String COMMENT 'east, central, west or northeast, as the statistics bureau groups provinces.',
    provinces String COMMENT 'Its provinces, joined by '';''.',
    time_zone String COMMENT 'IANA name.',
    latitude Float64 COMMENT 'Of its largest city, WGS 84. Unit: deg.',
    longitude Float64 COMMENT 'Of its largest city, WGS 84. Unit: deg.',
    population Int64 COMMENT 'Seventh National Population Census, 1 November 2020: usual residents. Unit: {person}.',
    gdp_yuan Float64 COMMENT 'GDP of 2023, as the provinces first published it. Unit: CNY.',
    demand_share Float64 COMMENT 'Share of the token demand, taken as the share of GDP; sums to 1.'
)
ENGINE = MergeTree
ORDER BY (region)
COMMENT 'Demand regions. Filled from the catalogue by wattstream migrate.';

CREATE TABLE IF NOT EXISTS accelerator_models
(
    model String COMMENT 'The accelerator model.',
    vendor String COMMENT 'Who made it.',
    form String COMMENT 'module (OAM, SXM) or card (PCIe).',
    memory_type String COMMENT 'HBM2e, GDDR6, …; empty where unknown.',
    memory_bytes Nullable(Int64) COMMENT 'Device memory; a marketed GB is taken as 2^30 bytes. Unit: By.',
    memory_bandwidth_bytes_per_second Nullable(Float64) COMMENT 'Peak memory bandwidth. Unit: By/s.',
    tdp_watts Nullable(Float64) COMMENT 'Maximum board or module power. Unit: W.',
    fp64_tflops Nullable(Float64) COMMENT 'Peak dense 64-bit floating point, vector units. Unit: TFLOP/s.',
    fp32_tflops Nullable(Float64) COMMENT 'Peak dense 32-bit floating point, vector units. Unit: TFLOP/s.',
    tf32_tflops Nullable(Float64) COMMENT 'Peak dense TF32 in matrix units, without sparsity. Unit: TFLOP/s.',
    fp16_tflops Nullable(Float64) COMMENT 'Peak dense FP16 in matrix units, without sparsity. Unit: TFLOP/s.',
    bf16_tflops Nullable(Float64) COMMENT 'Peak dense BF16 in matrix units, without sparsity. Unit: TFLOP/s.',
    fp8_tflops Nullable(Float64) COMMENT 'Peak dense FP8 in matrix units, without sparsity. Unit: TFLOP/s.',
    int8_tops Nullable(Float64) COMMENT 'Peak dense INT8, without sparsity. Unit: TOP/s.',
    confidence String COMMENT 'The weakest confidence of its figures: vendor or press; unknown without any figure.',
    source String COMMENT 'Which figure is from which document; none was published for the rest.'
)
ENGINE = MergeTree
ORDER BY (model)
COMMENT 'Accelerator models with their peak figures. Filled from the catalogue by wattstream migrate.';

CREATE TABLE IF NOT EXISTS accelerator_figures
(
    model String COMMENT 'The accelerator model.',
    figure String COMMENT 'The column of accelerator_models.',
    value Float64 COMMENT 'The figure. Unit: by figure.',
    confidence String COMMENT 'vendor (own document) or press (others'' reports).',
    source String COMMENT 'Title of the document.'
)
ENGINE = MergeTree
ORDER BY (model, figure)
COMMENT 'Where each figure of an accelerator model comes from. Filled from the catalogue by wattstream migrate.';

CREATE TABLE IF NOT EXISTS gateway_models
(
    model String COMMENT 'The model''s name in a request (gen_ai.request.model).',
    name String COMMENT 'Display name.',
    family String COMMENT 'Jiutian, DeepSeek, Qwen, ….',
    provider String COMMENT 'Who makes it (gen_ai.provider.name).',
    kind String COMMENT 'chat, reasoning, vision, code, embedding, rerank, image, video, audio, math or translation.',
    parameters_billions Nullable(Float64) COMMENT 'All parameters; null where not public. Unit: 10^9.',
    active_parameters_billions Nullable(Float64) COMMENT 'Used for one token; null if not public. Unit: 10^9.',
    context_tokens Nullable(Int64) COMMENT 'Longest context; null where not public. Unit: {token}.',
    open_weights Bool COMMENT 'Whether its weights can be downloaded.',
    demand_weight Float64 COMMENT 'Relative demand in the simulator (synthetic).'
)
ENGINE = MergeTree
ORDER BY (model)
COMMENT 'Models behind the API gateway. Filled from the catalogue by wattstream migrate.';

CREATE TABLE IF NOT EXISTS optical_links
(
    link String COMMENT 'The optical link.',
    kind String COMMENT 'backbone (campus to campus) or access (campus to edge).',
    a_site String COMMENT 'One end.',
    z_site String COMMENT 'The other end.',
    capacity_bits_per_second Int64 COMMENT 'Each way (synthetic): 96 waves of 400 or 100 Gbit/s between campuses, 1 or 2 of 400 Gbit/s to an edge. Unit: bit/s.',
    route_factor Float64 COMMENT 'Fibre length ÷ great circle (synthetic): 1.15 within a hub, 1.35 between hubs, 1.5 to an edge node.',
    length_metres Float64 COMMENT 'Great circle between the sites × route_factor. Unit: m.',
    latency_seconds Float64 COMMENT 'Propagation one way: length × 1.468 ÷ c. Unit: s.'
)
ENGINE = MergeTree
ORDER BY (link)
COMMENT 'Optical links between sites. Filled from the catalogue by wattstream migrate.';

CREATE TABLE IF NOT EXISTS fleet
(
    site String COMMENT 'The campus or edge node.',
    model String COMMENT 'The accelerator model.',
    vendor String COMMENT 'Who made it.',
    accelerators Int64 COMMENT 'nodes × accelerators_per_node. Unit: {device}.',
    nodes Int64 COMMENT 'Servers (synthetic). Unit: {node}.',
    accelerators_per_node Int64 COMMENT 'Accelerators in a server. Unit: {device}.',
    racks Int64 COMMENT 'nodes ÷ nodes_per_rack, rounded up. Unit: {rack}.',
    nodes_per_rack Int64 COMMENT 'Servers in a rack. Unit: {node}.',
    node_watts Float64 COMMENT 'IT power of a server under full load, as planned for (synthetic). Unit: W.',
    rated_watts Float64 COMMENT 'IT power of them all: nodes × node_watts. Unit: W.'
)
ENGINE = MergeTree
ORDER BY (site, model)
COMMENT 'How many accelerators of which model a site has. Filled from the catalogue by wattstream migrate.';

CREATE TABLE IF NOT EXISTS tenants
(
    tenant String COMMENT 'The customer (synthetic).',
    name String COMMENT 'Display name.',
    sector String COMMENT 'finance, government, internet, ….',
    region String COMMENT 'Where its demand comes from.',
    demand_weight Float64 COMMENT 'Relative demand.'
)
ENGINE = MergeTree
ORDER BY (tenant)
COMMENT 'Customers of the simulated network. Filled from the catalogue by wattstream migrate.';

CREATE TABLE IF NOT EXISTS token_packages
(
    package String COMMENT 'The token package (synthetic).',
    tenant String COMMENT 'Who owns it.',
    offer String COMMENT 'What was bought: trial, starter, team, business, enterprise or national.',
    tokens Int64 COMMENT 'Granted at rate 1, up to 10^12. Unit: {token}.',
    priority Int64 COMMENT 'Lower burns first.',
    validity_seconds Int64 COMMENT 'From its grant to its expiry. Unit: s.'
)
ENGINE = MergeTree
ORDER BY (package)
COMMENT 'Token packages of the simulated network. Filled from the catalogue by wattstream migrate.';
