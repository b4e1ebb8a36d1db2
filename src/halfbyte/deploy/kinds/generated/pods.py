# Generated from the published definition by tests/deploy/record_kinds.py. Do not edit.

from __future__ import annotations

from halfbyte.deploy.kinds.base import Free, LabelSelector, ObjectMeta, Shape
from halfbyte.deploy.kinds.scalars import IntOrString, Quantity


class MatchExpression(Shape):
    key: str
    operator: str
    values: list[str] | None = None


class Preference(Shape):
    matchExpressions: list[MatchExpression] | None = None
    matchFields: list[MatchExpression] | None = None


class PreferredDuringSchedulingIgnoredDuringExecution(Shape):
    preference: Preference
    weight: int


class RequiredDuringSchedulingIgnoredDuringExecution(Shape):
    nodeSelectorTerms: list[Preference]


class NodeAffinity(Shape):
    preferredDuringSchedulingIgnoredDuringExecution: list[PreferredDuringSchedulingIgnoredDuringExecution] | None = None
    requiredDuringSchedulingIgnoredDuringExecution: RequiredDuringSchedulingIgnoredDuringExecution | None = None


class PodAffinityTerm(Shape):
    labelSelector: LabelSelector | None = None
    matchLabelKeys: list[str] | None = None
    mismatchLabelKeys: list[str] | None = None
    namespaceSelector: LabelSelector | None = None
    namespaces: list[str] | None = None
    topologyKey: str


class PodAffinityPreferredDuringSchedulingIgnoredDuringExecution(Shape):
    podAffinityTerm: PodAffinityTerm
    weight: int


class PodAffinity(Shape):
    preferredDuringSchedulingIgnoredDuringExecution: (
        list[PodAffinityPreferredDuringSchedulingIgnoredDuringExecution] | None
    ) = None
    requiredDuringSchedulingIgnoredDuringExecution: list[PodAffinityTerm] | None = None


class Affinity(Shape):
    nodeAffinity: NodeAffinity | None = None
    podAffinity: PodAffinity | None = None
    podAntiAffinity: PodAffinity | None = None


class ConfigMapKeyRef(Shape):
    key: str
    name: str | None = None
    optional: bool | None = None


class FieldRef(Shape):
    apiVersion: str | None = None
    fieldPath: str


class FileKeyRef(Shape):
    key: str
    optional: bool | None = None
    path: str
    volumeName: str


class ResourceFieldRef(Shape):
    containerName: str | None = None
    divisor: Quantity | None = None
    resource: str


class ValueFrom(Shape):
    configMapKeyRef: ConfigMapKeyRef | None = None
    fieldRef: FieldRef | None = None
    fileKeyRef: FileKeyRef | None = None
    resourceFieldRef: ResourceFieldRef | None = None
    secretKeyRef: ConfigMapKeyRef | None = None


class EnvVar(Shape):
    name: str
    value: str | None = None
    valueFrom: ValueFrom | None = None


class ConfigMapRef(Shape):
    name: str | None = None
    optional: bool | None = None


class EnvFrom(Shape):
    configMapRef: ConfigMapRef | None = None
    prefix: str | None = None
    secretRef: ConfigMapRef | None = None


class Exec(Shape):
    command: list[str] | None = None


class HttpHeader(Shape):
    name: str
    value: str


class HttpGet(Shape):
    host: str | None = None
    httpHeaders: list[HttpHeader] | None = None
    path: str | None = None
    port: IntOrString
    scheme: str | None = None


class Sleep(Shape):
    seconds: int


class TcpSocket(Shape):
    host: str | None = None
    port: IntOrString


class Handler(Shape):
    exec: Exec | None = None
    httpGet: HttpGet | None = None
    sleep: Sleep | None = None
    tcpSocket: TcpSocket | None = None


class Lifecycle(Shape):
    postStart: Handler | None = None
    preStop: Handler | None = None
    stopSignal: str | None = None


class Grpc(Shape):
    port: int
    service: str | None = None


class Probe(Shape):
    exec: Exec | None = None
    failureThreshold: int | None = None
    grpc: Grpc | None = None
    httpGet: HttpGet | None = None
    initialDelaySeconds: int | None = None
    periodSeconds: int | None = None
    successThreshold: int | None = None
    tcpSocket: TcpSocket | None = None
    terminationGracePeriodSeconds: int | None = None
    timeoutSeconds: int | None = None


class Port(Shape):
    containerPort: int
    hostIP: str | None = None
    hostPort: int | None = None
    name: str | None = None
    protocol: str | None = None


class ResizePolicy(Shape):
    resourceName: str
    restartPolicy: str


class Claim(Shape):
    name: str
    request: str | None = None


class Resources(Shape):
    claims: list[Claim] | None = None
    limits: dict[str, Quantity] | None = None
    requests: dict[str, Quantity] | None = None


class ExitCodes(Shape):
    operator: str
    values: list[int] | None = None


class RestartPolicyRule(Shape):
    action: str
    exitCodes: ExitCodes | None = None


class AppArmorProfile(Shape):
    localhostProfile: str | None = None
    type: str


class Capabilities(Shape):
    add: list[str] | None = None
    drop: list[str] | None = None


class SeLinuxOptions(Shape):
    level: str | None = None
    role: str | None = None
    type: str | None = None
    user: str | None = None


class WindowsOptions(Shape):
    gmsaCredentialSpec: str | None = None
    gmsaCredentialSpecName: str | None = None
    hostProcess: bool | None = None
    runAsUserName: str | None = None


class SecurityContext(Shape):
    allowPrivilegeEscalation: bool | None = None
    appArmorProfile: AppArmorProfile | None = None
    capabilities: Capabilities | None = None
    privileged: bool | None = None
    procMount: str | None = None
    readOnlyRootFilesystem: bool | None = None
    runAsGroup: int | None = None
    runAsNonRoot: bool | None = None
    runAsUser: int | None = None
    seLinuxOptions: SeLinuxOptions | None = None
    seccompProfile: AppArmorProfile | None = None
    windowsOptions: WindowsOptions | None = None


class VolumeDevice(Shape):
    devicePath: str
    name: str


class VolumeMount(Shape):
    mountPath: str
    mountPropagation: str | None = None
    name: str
    readOnly: bool | None = None
    recursiveReadOnly: str | None = None
    subPath: str | None = None
    subPathExpr: str | None = None


class Container(Shape):
    args: list[str] | None = None
    command: list[str] | None = None
    env: list[EnvVar] | None = None
    envFrom: list[EnvFrom] | None = None
    image: str | None = None
    imagePullPolicy: str | None = None
    lifecycle: Lifecycle | None = None
    livenessProbe: Probe | None = None
    name: str
    ports: list[Port] | None = None
    readinessProbe: Probe | None = None
    resizePolicy: list[ResizePolicy] | None = None
    resources: Resources | None = None
    restartPolicy: str | None = None
    restartPolicyRules: list[RestartPolicyRule] | None = None
    securityContext: SecurityContext | None = None
    startupProbe: Probe | None = None
    stdin: bool | None = None
    stdinOnce: bool | None = None
    terminationMessagePath: str | None = None
    terminationMessagePolicy: str | None = None
    tty: bool | None = None
    volumeDevices: list[VolumeDevice] | None = None
    volumeMounts: list[VolumeMount] | None = None
    workingDir: str | None = None


class Option(Shape):
    name: str | None = None
    value: str | None = None


class DnsConfig(Shape):
    nameservers: list[str] | None = None
    options: list[Option] | None = None
    searches: list[str] | None = None


class HostAliase(Shape):
    hostnames: list[str] | None = None
    ip: str


class ImagePullSecret(Shape):
    name: str | None = None


class Os(Shape):
    name: str


class ReadinessGate(Shape):
    conditionType: str


class ResourceClaim(Shape):
    name: str
    resourceClaimName: str | None = None
    resourceClaimTemplateName: str | None = None


class SchedulingGroup(Shape):
    podGroupName: str | None = None


class SpecSecurityContext(Shape):
    appArmorProfile: AppArmorProfile | None = None
    fsGroup: int | None = None
    fsGroupChangePolicy: str | None = None
    runAsGroup: int | None = None
    runAsNonRoot: bool | None = None
    runAsUser: int | None = None
    seLinuxChangePolicy: str | None = None
    seLinuxOptions: SeLinuxOptions | None = None
    seccompProfile: AppArmorProfile | None = None
    supplementalGroups: list[int] | None = None
    supplementalGroupsPolicy: str | None = None
    sysctls: list[HttpHeader] | None = None
    windowsOptions: WindowsOptions | None = None


class Toleration(Shape):
    effect: str | None = None
    key: str | None = None
    operator: str | None = None
    tolerationSeconds: int | None = None
    value: str | None = None


class TopologySpreadConstraint(Shape):
    labelSelector: LabelSelector | None = None
    matchLabelKeys: list[str] | None = None
    maxSkew: int
    minDomains: int | None = None
    nodeAffinityPolicy: str | None = None
    nodeTaintsPolicy: str | None = None
    topologyKey: str
    whenUnsatisfiable: str


class AwsElasticBlockStore(Shape):
    fsType: str | None = None
    partition: int | None = None
    readOnly: bool | None = None
    volumeID: str


class AzureDisk(Shape):
    cachingMode: str | None = None
    diskName: str
    diskURI: str
    fsType: str | None = None
    kind: str | None = None
    readOnly: bool | None = None


class AzureFile(Shape):
    readOnly: bool | None = None
    secretName: str
    shareName: str


class Cephfs(Shape):
    monitors: list[str]
    path: str | None = None
    readOnly: bool | None = None
    secretFile: str | None = None
    secretRef: ImagePullSecret | None = None
    user: str | None = None


class Cinder(Shape):
    fsType: str | None = None
    readOnly: bool | None = None
    secretRef: ImagePullSecret | None = None
    volumeID: str


class Item(Shape):
    key: str
    mode: int | None = None
    path: str


class ConfigMap(Shape):
    defaultMode: int | None = None
    items: list[Item] | None = None
    name: str | None = None
    optional: bool | None = None


class Csi(Shape):
    driver: str
    fsType: str | None = None
    nodePublishSecretRef: ImagePullSecret | None = None
    readOnly: bool | None = None
    volumeAttributes: dict[str, str] | None = None


class DownwardAPIItem(Shape):
    fieldRef: FieldRef | None = None
    mode: int | None = None
    path: str
    resourceFieldRef: ResourceFieldRef | None = None


class DownwardAPI(Shape):
    defaultMode: int | None = None
    items: list[DownwardAPIItem] | None = None


class EmptyDir(Shape):
    medium: str | None = None
    sizeLimit: Quantity | None = None


class DataSource(Shape):
    apiGroup: str | None = None
    kind: str
    name: str


class DataSourceRef(Shape):
    apiGroup: str | None = None
    kind: str
    name: str
    namespace: str | None = None


class SpecResources(Shape):
    limits: dict[str, Quantity] | None = None
    requests: dict[str, Quantity] | None = None


class Spec(Shape):
    accessModes: list[str] | None = None
    dataSource: DataSource | None = None
    dataSourceRef: DataSourceRef | None = None
    resources: SpecResources | None = None
    selector: LabelSelector | None = None
    storageClassName: str | None = None
    volumeAttributesClassName: str | None = None
    volumeMode: str | None = None
    volumeName: str | None = None


class VolumeClaimTemplate(Shape):
    metadata: ObjectMeta | None = None
    spec: Spec


class Ephemeral(Shape):
    volumeClaimTemplate: VolumeClaimTemplate | None = None


class Fc(Shape):
    fsType: str | None = None
    lun: int | None = None
    readOnly: bool | None = None
    targetWWNs: list[str] | None = None
    wwids: list[str] | None = None


class FlexVolume(Shape):
    driver: str
    fsType: str | None = None
    options: dict[str, str] | None = None
    readOnly: bool | None = None
    secretRef: ImagePullSecret | None = None


class Flocker(Shape):
    datasetName: str | None = None
    datasetUUID: str | None = None


class GcePersistentDisk(Shape):
    fsType: str | None = None
    partition: int | None = None
    pdName: str
    readOnly: bool | None = None


class GitRepo(Shape):
    directory: str | None = None
    repository: str
    revision: str | None = None


class Glusterfs(Shape):
    endpoints: str
    path: str
    readOnly: bool | None = None


class HostPath(Shape):
    path: str
    type: str | None = None


class Image(Shape):
    pullPolicy: str | None = None
    reference: str | None = None


class Iscsi(Shape):
    chapAuthDiscovery: bool | None = None
    chapAuthSession: bool | None = None
    fsType: str | None = None
    initiatorName: str | None = None
    iqn: str
    iscsiInterface: str | None = None
    lun: int
    portals: list[str] | None = None
    readOnly: bool | None = None
    secretRef: ImagePullSecret | None = None
    targetPortal: str


class Nfs(Shape):
    path: str
    readOnly: bool | None = None
    server: str


class PersistentVolumeClaim(Shape):
    claimName: str
    readOnly: bool | None = None


class PhotonPersistentDisk(Shape):
    fsType: str | None = None
    pdID: str


class PortworxVolume(Shape):
    fsType: str | None = None
    readOnly: bool | None = None
    volumeID: str


class ClusterTrustBundle(Shape):
    labelSelector: LabelSelector | None = None
    name: str | None = None
    optional: bool | None = None
    path: str
    signerName: str | None = None


class SourceConfigMap(Shape):
    items: list[Item] | None = None
    name: str | None = None
    optional: bool | None = None


class SourceDownwardAPI(Shape):
    items: list[DownwardAPIItem] | None = None


class PodCertificate(Shape):
    certificateChainPath: str | None = None
    credentialBundlePath: str | None = None
    keyPath: str | None = None
    keyType: str
    maxExpirationSeconds: int | None = None
    signerName: str
    userAnnotations: dict[str, str] | None = None


class ServiceAccountToken(Shape):
    audience: str | None = None
    expirationSeconds: int | None = None
    path: str


class Source(Shape):
    clusterTrustBundle: ClusterTrustBundle | None = None
    configMap: SourceConfigMap | None = None
    downwardAPI: SourceDownwardAPI | None = None
    podCertificate: PodCertificate | None = None
    secret: SourceConfigMap | None = None
    serviceAccountToken: ServiceAccountToken | None = None


class Projected(Shape):
    defaultMode: int | None = None
    sources: list[Source] | None = None


class Quobyte(Shape):
    group: str | None = None
    readOnly: bool | None = None
    registry: str
    tenant: str | None = None
    user: str | None = None
    volume: str


class Rbd(Shape):
    fsType: str | None = None
    image: str
    keyring: str | None = None
    monitors: list[str]
    pool: str | None = None
    readOnly: bool | None = None
    secretRef: ImagePullSecret | None = None
    user: str | None = None


class ScaleIO(Shape):
    fsType: str | None = None
    gateway: str
    protectionDomain: str | None = None
    readOnly: bool | None = None
    secretRef: ImagePullSecret
    sslEnabled: bool | None = None
    storageMode: str | None = None
    storagePool: str | None = None
    system: str
    volumeName: str | None = None


class Secret(Shape):
    defaultMode: int | None = None
    items: list[Item] | None = None
    optional: bool | None = None
    secretName: str | None = None


class Storageos(Shape):
    fsType: str | None = None
    readOnly: bool | None = None
    secretRef: ImagePullSecret | None = None
    volumeName: str | None = None
    volumeNamespace: str | None = None


class VsphereVolume(Shape):
    fsType: str | None = None
    storagePolicyID: str | None = None
    storagePolicyName: str | None = None
    volumePath: str


class Volume(Shape):
    awsElasticBlockStore: AwsElasticBlockStore | None = None
    azureDisk: AzureDisk | None = None
    azureFile: AzureFile | None = None
    cephfs: Cephfs | None = None
    cinder: Cinder | None = None
    configMap: ConfigMap | None = None
    csi: Csi | None = None
    downwardAPI: DownwardAPI | None = None
    emptyDir: EmptyDir | None = None
    ephemeral: Ephemeral | None = None
    fc: Fc | None = None
    flexVolume: FlexVolume | None = None
    flocker: Flocker | None = None
    gcePersistentDisk: GcePersistentDisk | None = None
    gitRepo: GitRepo | None = None
    glusterfs: Glusterfs | None = None
    hostPath: HostPath | None = None
    image: Image | None = None
    iscsi: Iscsi | None = None
    name: str
    nfs: Nfs | None = None
    persistentVolumeClaim: PersistentVolumeClaim | None = None
    photonPersistentDisk: PhotonPersistentDisk | None = None
    portworxVolume: PortworxVolume | None = None
    projected: Projected | None = None
    quobyte: Quobyte | None = None
    rbd: Rbd | None = None
    scaleIO: ScaleIO | None = None
    secret: Secret | None = None
    storageos: Storageos | None = None
    vsphereVolume: VsphereVolume | None = None


class PodTemplateSpec(Shape):
    activeDeadlineSeconds: int | None = None
    affinity: Affinity | None = None
    automountServiceAccountToken: bool | None = None
    containers: list[Container] | None = None
    dnsConfig: DnsConfig | None = None
    dnsPolicy: str | None = None
    enableServiceLinks: bool | None = None
    ephemeralContainers: Free | None = None
    hostAliases: list[HostAliase] | None = None
    hostIPC: bool | None = None
    hostNetwork: bool | None = None
    hostPID: bool | None = None
    hostUsers: bool | None = None
    hostname: str | None = None
    hostnameOverride: str | None = None
    imagePullSecrets: list[ImagePullSecret] | None = None
    initContainers: list[Container] | None = None
    nodeName: str | None = None
    nodeSelector: dict[str, str] | None = None
    os: Os | None = None
    overhead: dict[str, Quantity] | None = None
    preemptionPolicy: str | None = None
    priority: int | None = None
    priorityClassName: str | None = None
    readinessGates: list[ReadinessGate] | None = None
    resourceClaims: list[ResourceClaim] | None = None
    resources: Resources | None = None
    restartPolicy: str | None = None
    runtimeClassName: str | None = None
    schedulerName: str | None = None
    schedulingGates: list[Os] | None = None
    schedulingGroup: SchedulingGroup | None = None
    securityContext: SpecSecurityContext | None = None
    serviceAccount: str | None = None
    serviceAccountName: str | None = None
    setHostnameAsFQDN: bool | None = None
    shareProcessNamespace: bool | None = None
    subdomain: str | None = None
    terminationGracePeriodSeconds: int | None = None
    tolerations: list[Toleration] | None = None
    topologySpreadConstraints: list[TopologySpreadConstraint] | None = None
    volumes: list[Volume] | None = None


class PodTemplate(Shape):
    metadata: ObjectMeta | None = None
    spec: PodTemplateSpec | None = None
